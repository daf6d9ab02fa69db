//! Compares this project's preprocessing with other image libraries: `cargo bench -p preprocess-peers`.
//!
//! A tool is this project or one of the other libraries. Every tool does the same work in memory: it decodes
//! a picture, scales the shorter side to 256 pixels and encodes a JPEG of this project's quality without
//! chroma subsampling. Each tool runs on one thread of a worker process, which measures its own CPU time.
//! This project's worker is this program with the argument `--worker`. In each round, every tool processes
//! every picture.
//!
//! `benches/preprocess-peers/install` installs the other libraries. A library that is not installed is
//! reported as SKIPPED. The benchmark prints its tables. `cargo bench` also writes the tables to
//! `docs/benchmarks/preprocess-peers.md`, where they replace the tables of the same build: default or
//! `--features turbo`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failure ends the benchmark")]
#![expect(clippy::print_stdout, reason = "the tables are the result")]

mod pictures;
mod report;
mod tools;

use std::time::Duration;

use bench_harness::{is_cargo_bench, machine, markdown};

/// Sizes of the pictures, and number and length of the measurements.
struct Effort {
    /// Width and height of the large, the middle and the small picture, in pixels.
    sizes: [(u32, u32); 3],
    /// Number of rounds in which CPU time is measured.
    round_count: usize,
    /// Time that a tool spends on each picture in each round.
    round_duration: Duration,
    /// Number of workers that are started per tool, one after the other, to measure the tool's memory.
    memory_worker_count: usize,
}

/// The effort under `cargo bench`.
const FULL: Effort = Effort {
    sizes: [(4000, 3000), (1632, 1224), (640, 480)],
    round_count: 20,
    round_duration: Duration::from_millis(60),
    memory_worker_count: 5,
};

/// The effort under `cargo test`, which only checks that the benchmark runs.
const QUICK: Effort = Effort {
    sizes: [(800, 600), (480, 360), (400, 300)],
    round_count: 1,
    round_duration: Duration::ZERO,
    memory_worker_count: 1,
};

/// Name of this build in the tables. The two builds use different decoders.
const BUILD: &str = if cfg!(feature = "turbo") { "turbo" } else { "default" };

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [argument, threads] = &arguments[..]
        && argument == tools::WORKER_ARGUMENT
    {
        return tools::serve_ours(threads.parse().unwrap());
    }
    let cores = machine::keep_to_two_cores();
    let effort = if is_cargo_bench() { FULL } else { QUICK };
    let mut notes = Vec::new();
    if !is_cargo_bench() {
        notes.push("A trial: one round with small pictures. Its figures mean nothing.".to_owned());
    }
    let folder = tempfile::tempdir().unwrap();
    let pictures = pictures::create(folder.path(), effort.sizes, &mut notes);
    let tools = tools::measure(folder.path(), &pictures, &effort, &mut notes);
    let section = report::format_section(&cores, &pictures, &tools, notes);
    println!("\n{section}");
    if is_cargo_bench() {
        markdown::write_section("preprocess-peers.md", report::TITLE, &section);
    }
}
