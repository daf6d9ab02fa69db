//! This project's network and service beside their peers: `cargo bench -p peers`.
//!
//! First engines run the compiled-in network on one picture, then servers classify the same picture over
//! HTTP, each in interleaved rounds and all on at most two cores. `benches/peers/install` installs the peers
//! that are not crates; an absent one is reported as SKIPPED. The tables are printed and replace those of the
//! same model in `docs/benchmarks/peers.md`.
//!
//! `cargo bench -p peers -- engine` or `-- http` runs one of the two parts and writes nothing. The ONNX file
//! of the compiled-in model is the one in `models/`, or `CLASSIFY_MODEL_ONNX`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a bench that fails ends the run")]
#![expect(clippy::print_stdout, reason = "the tables are the result")]

mod engine_worker;
mod engines;
mod load;
mod servers;

use std::{fs, path::PathBuf, time::Duration};

use bench_harness::{machine, markdown, repository, skip};
use classify::{
    model::{GEOMETRY, spec},
    pixels::{self, Crop},
};

const TITLE: &str = "# This project beside its peers\n\n\
    Written by `cargo bench -p peers`, which replaces the section of the model that it was built with.\n\
    Everything in a section is measured in one run, in interleaved rounds. A figure is the median of its\n\
    rounds, with the best round in brackets. Absolute figures apply to this machine only.\n";

/// Amount of measuring.
struct Effort {
    engine_rounds: usize,
    /// Running time of an engine per round.
    engine_slice: Duration,
    http_rounds: usize,
    /// Time under load per round, server and number of connections.
    http_slice: Duration,
    /// Measured starts per server.
    starts: usize,
}

const FULL: Effort = Effort {
    engine_rounds: 20,
    engine_slice: Duration::from_millis(300),
    http_rounds: 7,
    http_slice: Duration::from_secs(2),
    starts: 7,
};

const QUICK: Effort = Effort {
    engine_rounds: 1,
    engine_slice: Duration::ZERO,
    http_rounds: 1,
    http_slice: Duration::from_millis(100),
    starts: 1,
};

/// The model and the picture that everything is measured with.
struct Subject {
    /// The model's ONNX file, if it exists.
    onnx: Option<PathBuf>,
    /// The picture as the network sees it, in bytes.
    crop: Crop,
    /// The picture as the network's input, `[1, 3, CROP, CROP]`.
    nchw: Vec<f32>,
    /// The picture as a client sends it: 224×224, 15 KB.
    jpeg: Vec<u8>,
}

impl Subject {
    fn new() -> Self {
        let photo = fs::read(repository().join("samples/coffee_224.png")).unwrap();
        let header = pixels::ImageHeader::read(&photo, u64::MAX).unwrap();
        let crop = pixels::crop(&photo, &header, GEOMETRY).unwrap();
        let settings = preprocess::Settings { preprocess_jpeg_quality: 90, ..Default::default() };
        let jpeg = preprocess::image::process(&photo, &settings.recipe()).unwrap().jpeg.into();
        let nchw = normalise(&crop);
        // A file of another model is found out by its logits.
        let onnx = match std::env::var_os("CLASSIFY_MODEL_ONNX") {
            Some(file) => repository().join(file),
            None => repository().join("models").join(spec::NAME).join("model.onnx"),
        };
        Self { onnx: onnx.is_file().then_some(onnx), crop, nchw, jpeg }
    }
}

/// Returns `(value / 255 - mean) / std` of each value, one plane per channel.
fn normalise(crop: &Crop) -> Vec<f32> {
    let plane = |channel: usize| {
        let values = crop.rgb().iter().skip(channel).step_by(3);
        values.map(move |&value| (f32::from(value) / 255.0 - spec::MEAN[channel]) / spec::STD[channel])
    };
    (0..3).flat_map(plane).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == engine_worker::ARGUMENT) {
        return engine_worker::serve(&arguments[1..]);
    }
    let cores = machine::keep_to_two_cores();
    let is_measured = bench_harness::is_measured_run();
    let effort = if is_measured { FULL } else { QUICK };
    let is_named = |part: &str| arguments.iter().any(|argument| argument == part);
    let all_parts = is_named("engine") == is_named("http");

    let subject = Subject::new();
    let mut notes = Vec::new();
    if subject.onnx.is_none() {
        skip(&mut notes, &format!("all peers: the ONNX file of {} does not exist", spec::NAME));
    }
    let model = format!(
        "- Model: {}, ONNX file of SHA-256 {}, float32, batch 1; here on {}",
        spec::NAME,
        spec::ONNX_SHA256,
        machine::locked_crate("burn")
    );
    let mut pieces =
        vec![format!("## {}", spec::NAME), machine::describe(&cores, &model, "cargo bench -p peers")];
    if all_parts || is_named("engine") {
        pieces.extend(engines::measure(&subject, &effort, &mut notes));
    }
    if all_parts || is_named("http") {
        pieces.extend(servers::measure(&subject, &effort, &mut notes));
    }
    pieces.extend(notes);
    let section = pieces.join("\n\n") + "\n";
    println!("\n{section}");
    if is_measured && all_parts {
        markdown::write_section("peers.md", TITLE, &section);
    }
}
