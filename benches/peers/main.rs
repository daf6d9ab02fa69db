//! Compares this project's network and service with other inference engines and servers, their peers:
//! `cargo bench -p peers`.
//!
//! In the first part, inference engines run the compiled-in network on one picture. In the second part,
//! servers classify the same picture over HTTP. Both parts measure in interleaved rounds, on at most two
//! cores.
//!
//! `benches/peers/install` installs the peers that are not crates. A peer that is not installed is reported
//! as SKIPPED. The benchmark prints its tables. `cargo bench` also writes the tables to
//! `docs/benchmarks/peers.md`, where they replace the tables of the same model.
//!
//! `cargo bench -p peers -- engine` runs only the first part and `-- http` only the second; neither writes
//! the file. The peers read the compiled-in model from its ONNX file in `models/`, or from the file that
//! `CLASSIFY_MODEL_ONNX` names.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failure ends the benchmark")]
#![expect(clippy::print_stdout, reason = "the tables are the result")]

mod engine_worker;
mod engines;
mod load;
mod servers;

use std::{fs, path::PathBuf, time::Duration};

use bench_harness::{machine, markdown, report_skipped, repository};
use classify::{
    model::{GEOMETRY, spec},
    pixels::{self, Crop},
};

const TITLE: &str = "# This project beside its peers\n\n\
    Written by `cargo bench -p peers`, which replaces the section of the model that it was built with.\n\
    Everything in a section is measured in one run, in interleaved rounds. A figure is the median of its\n\
    rounds, with the best round in brackets. Absolute figures apply to this machine only.\n";

/// Number and length of the measurements.
struct Effort {
    /// Number of rounds in which the engines are measured.
    engine_rounds: usize,
    /// Time for which each engine is measured in each round.
    engine_round_duration: Duration,
    /// Number of rounds in which the servers are under load.
    http_rounds: usize,
    /// Time for which each server is under load in each round, with each number of connections.
    load_duration: Duration,
    /// Number of times that the start of each server is measured.
    start_count: usize,
}

/// The effort under `cargo bench`.
const FULL: Effort = Effort {
    engine_rounds: 20,
    engine_round_duration: Duration::from_millis(300),
    http_rounds: 7,
    load_duration: Duration::from_secs(2),
    start_count: 7,
};

/// The effort under `cargo test`, which only checks that the benchmark runs.
const QUICK: Effort = Effort {
    engine_rounds: 1,
    engine_round_duration: Duration::ZERO,
    http_rounds: 1,
    load_duration: Duration::from_millis(100),
    start_count: 1,
};

/// The model and the picture that every engine and server is measured with.
struct Subject {
    /// Path of the model's ONNX file, if the file exists.
    onnx_path: Option<PathBuf>,
    /// The crop of the picture that the network classifies, as bytes.
    crop: Crop,
    /// The normalised crop, as the network's input tensor of the shape `[1, channels, height, width]`.
    input_tensor: Vec<f32>,
    /// The picture as a client sends it: 224×224 pixels, 15 KB.
    jpeg: Vec<u8>,
}

impl Subject {
    /// Reads the picture and checks that the ONNX file exists.
    fn new() -> Self {
        let photo = fs::read(repository().join("samples/coffee_224.png")).unwrap();
        let header =
            pixels::ImageHeader::read(&photo, &classify::Settings::default().image_limits()).unwrap();
        let crop = pixels::crop(&photo, &header, GEOMETRY).unwrap();
        let settings = preprocess::Settings { preprocess_jpeg_quality: 90, ..Default::default() };
        let jpeg = preprocess::image::process(&photo, &settings.recipe()).unwrap().jpeg.into();
        let input_tensor = normalise(&crop);
        // If this is not the file of the compiled-in model, the engines' logits differ and the benchmark
        // fails.
        let onnx_path = match std::env::var_os("CLASSIFY_MODEL_ONNX") {
            Some(file) => repository().join(file),
            None => repository().join("models").join(spec::NAME).join("model.onnx"),
        };
        Self { onnx_path: onnx_path.is_file().then_some(onnx_path), crop, input_tensor, jpeg }
    }
}

/// Returns the normalised value of each byte of the crop, one plane per channel.
fn normalise(crop: &Crop) -> Vec<f32> {
    let plane = |channel: usize| {
        let bytes = crop.bytes().iter().skip(channel).step_by(spec::INPUT[0]);
        bytes.map(move |&byte| spec::NORMALISATION.apply(channel, byte))
    };
    (0..spec::INPUT[0]).flat_map(plane).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == engine_worker::ARGUMENT) {
        return engine_worker::serve(&arguments[1..]);
    }
    let cores = machine::keep_to_two_cores();
    let is_measured = bench_harness::is_cargo_bench();
    let effort = if is_measured { FULL } else { QUICK };
    let is_named = |part: &str| arguments.iter().any(|argument| argument == part);
    // Naming neither part means both parts.
    let all_parts = is_named("engine") == is_named("http");

    let subject = Subject::new();
    let mut notes = Vec::new();
    if subject.onnx_path.is_none() {
        report_skipped(&mut notes, &format!("all peers: the ONNX file of {} does not exist", spec::NAME));
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
