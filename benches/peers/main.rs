//! This project beside what people would pick instead, in one run: `cargo bench --bench peers`.
//!
//! Engines run the compiled-in network on one picture, then servers answer the same picture over HTTP,
//! all in rounds, so that a disturbance meets everything alike, and all on at most two cores.
//! `benches/peers/install` gets the peers that are not crates; what is not there is told as SKIPPED. The
//! table is printed and written to `benches/peers.md`, where it replaces the one of the same model.
//!
//! Named as arguments (`cargo bench --bench peers -- engine`), parts run alone, and nothing is written:
//! `engine`, `http`. The compiled-in model's ONNX file is that of `models/`, or `CLASSIFY_MODEL_ONNX`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a bench that fails ends the run")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

mod ceiling;
mod engines;
mod figures;
mod http;
mod in_process;
mod lines;
mod load;
mod machine;
mod report;
mod sections;
mod servers;
mod worker;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use classify::{
    network::{GEOMETRY, spec},
    pixels::{self, Crop},
};

/// How much is measured.
struct Effort {
    /// Rounds of the engines.
    engine_rounds: usize,
    /// How long an engine runs in a round.
    engine_slice: Duration,
    /// Rounds of the servers.
    http_rounds: usize,
    /// How long a server is under load in a round, with each number of connections.
    http_slice: Duration,
    /// How often each server is started.
    starts: usize,
}

const FULL: Effort = Effort {
    engine_rounds: 20,
    engine_slice: Duration::from_millis(300),
    http_rounds: 7,
    http_slice: Duration::from_secs(2),
    starts: 7,
};

/// For `cargo test`, which only wants to see it run.
const QUICK: Effort = Effort {
    engine_rounds: 1,
    engine_slice: Duration::ZERO,
    http_rounds: 1,
    http_slice: Duration::from_millis(100),
    starts: 1,
};

/// What everybody gets: the same model and the same picture.
struct Subject {
    /// The ONNX file, if it is there.
    onnx: Option<PathBuf>,
    /// The picture as the network sees it, in bytes.
    crop: Crop,
    /// The same as the network's input, `[1, 3, CROP, CROP]`.
    nchw: Vec<f32>,
    /// The picture as a client sends it: 224×224, 15 KB.
    jpeg: Vec<u8>,
}

impl Subject {
    fn new() -> Self {
        let photo = std::fs::read(repository().join("samples/coffee_224.png")).unwrap();
        let header = pixels::Header::read(&photo, u64::MAX).unwrap();
        let crop = pixels::crop(&photo, &header, GEOMETRY).unwrap();
        let settings = preprocess::Settings { jpeg_quality: 90, ..Default::default() };
        let jpeg = preprocess::image::process(&photo, &settings.recipe()).unwrap().jpeg.into();
        let nchw = normalised(&crop);
        Self { onnx: onnx_file(), crop, nchw, jpeg }
    }
}

/// `(value / 255 - mean) / std`, a plane for each channel.
fn normalised(crop: &Crop) -> Vec<f32> {
    let plane = |channel: usize| {
        let values = crop.rgb().iter().skip(channel).step_by(3);
        values.map(move |&value| (f32::from(value) / 255.0 - spec::MEAN[channel]) / spec::STD[channel])
    };
    (0..3).flat_map(plane).collect()
}

/// The folder of the repository.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where `benches/peers/install` puts the peers.
fn peers_folder() -> PathBuf {
    repository().join("target/peers")
}

/// The file that the compiled-in network was made of; that it is this one shows in the logits.
fn onnx_file() -> Option<PathBuf> {
    let file = match std::env::var_os("CLASSIFY_MODEL_ONNX") {
        Some(given) => repository().join(given),
        None => repository().join("models").join(spec::NAME).join("model.onnx"),
    };
    file.is_file().then_some(file)
}

/// Which network, and what runs it here.
fn subject_line() -> String {
    format!(
        "- Model: {}, ONNX file of SHA-256 {}, float32, batch 1; here on burn {}",
        spec::NAME,
        spec::ONNX_SHA256,
        machine::locked_version("burn")
    )
}

/// Says that something is not measured, and why; for the table, too.
fn skipped(notes: &mut Vec<String>, what: &str) {
    println!("SKIPPED: {what}");
    notes.push(format!("Not measured: {what}."));
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let cores = machine::keep_to_two_cores();
    // `cargo test` leaves this flag out.
    let full = arguments.iter().any(|argument| argument == "--bench");
    let effort = if full { FULL } else { QUICK };
    let named = |part: &str| arguments.iter().any(|argument| argument == part);
    let all_parts = named("engine") == named("http");

    let subject = Subject::new();
    let mut notes = Vec::new();
    if subject.onnx.is_none() {
        skipped(&mut notes, &format!("all peers: the ONNX file of {} is not there", spec::NAME));
    }
    let mut sections = vec![machine::describe(&cores, &subject_line(), "cargo bench --bench peers")];
    if all_parts || named("engine") {
        let measured = engines::measure(&subject, &effort, &mut notes);
        sections.extend(report::engines(&measured));
    }
    if all_parts || named("http") {
        let measured = http::measure(&subject, &effort, &mut notes);
        sections.extend(report::servers(&measured));
    }
    sections.extend(notes);
    let section = report::section(&sections);
    println!("\n{section}");
    if full && all_parts {
        sections::write(&repository().join("docs/benchmarks/peers.md"), report::TITLE, &section);
    }
}
