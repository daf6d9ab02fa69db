//! This project's preprocessing beside other image libraries: `cargo bench -p preprocess-peers`.
//!
//! Every tool does the same in memory: decode, scale the shorter side to 256, encode a JPEG of this project's
//! quality in full colour. Each runs on one thread of a worker process, which counts its own CPU time; this
//! project's worker is this program with an argument. The tools run in turns on each picture, in rounds.
//! `benches/preprocess-peers/install` installs the peers; an absent one is reported as SKIPPED. The tables
//! are printed and replace those of the same build, default or `--features turbo`, in
//! `docs/benchmarks/preprocess-peers.md`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a bench that fails ends the run")]
#![expect(clippy::print_stdout, reason = "the tables are the result")]

mod pictures;
mod report;
mod tools;

use std::time::Duration;

use bench_harness::{is_measured_run, machine, markdown};

/// Amount of measuring.
struct Effort {
    /// Width and height of the large, the middle and the small picture.
    sizes: [(u32, u32); 3],
    rounds: usize,
    /// Running time of a tool per round and picture.
    slice: Duration,
    /// Starts per tool to measure its memory.
    starts: usize,
}

const FULL: Effort = Effort {
    sizes: [(4000, 3000), (1632, 1224), (640, 480)],
    rounds: 20,
    slice: Duration::from_millis(60),
    starts: 5,
};

const QUICK: Effort =
    Effort { sizes: [(800, 600), (480, 360), (400, 300)], rounds: 1, slice: Duration::ZERO, starts: 1 };

/// Name of this build; the builds differ in their decoders.
const BUILD: &str = if cfg!(feature = "turbo") { "turbo" } else { "default" };

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [argument, threads] = &arguments[..]
        && argument == tools::WORKER_ARGUMENT
    {
        return tools::serve_ours(threads.parse().unwrap());
    }
    let cores = machine::keep_to_two_cores();
    let effort = if is_measured_run() { FULL } else { QUICK };
    let mut notes = Vec::new();
    if !is_measured_run() {
        notes.push("A trial: one round with small pictures. Its figures mean nothing.".to_owned());
    }
    let folder = tempfile::tempdir().unwrap();
    let pictures = pictures::make(folder.path(), effort.sizes, &mut notes);
    let entrants = tools::measure(folder.path(), &pictures, &effort, &mut notes);
    let section = report::section(&cores, &pictures, &entrants, notes);
    println!("\n{section}");
    if is_measured_run() {
        markdown::write_section("preprocess-peers.md", report::TITLE, &section);
    }
}
