//! Provides worker processes, interleaved rounds, medians and Markdown tables to the benchmarks.
//!
//! The peers of a benchmark are the other libraries and programs with which it compares this project.
//!
//! A worker is a process that does the measured work, for this project or for a peer. It consists of one or
//! more instances, which run a job at the same time. A job is a piece of work that can be repeated, such as
//! decoding one picture, and a run executes it once. A contender is a worker with its measurements.
//!
//! In a round, every worker runs its jobs for a short time. Each round gives one value per worker, job and
//! measured quantity, such as the throughput.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a failure ends the benchmark, and the printed text is its result"
)]

pub mod machine;
pub mod markdown;
mod rounds;
mod series;
mod worker;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

pub use rounds::{Contender, Measurement, format_ratio, run_interleaved};
pub use series::{Series, milliseconds};
pub use worker::{RunTimes, Worker, WorkerInstance, serve};

/// Returns the root folder of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// Returns true under `cargo bench`, false under `cargo test`, which only checks that the benchmark runs.
pub fn is_cargo_bench() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Reports that `subject` is not measured: prints a line, and adds a sentence to the notes below the tables.
pub fn report_skipped(notes: &mut Vec<String>, subject: &str) {
    println!("SKIPPED: {subject}");
    notes.push(format!("Not measured: {subject}."));
}

/// Returns the folder into which the script `install` of the benchmark `bench` installs its peers.
pub fn peers_folder(bench: &str) -> PathBuf {
    repository().join("target").join(bench)
}

/// Returns the command that runs a Python script of a benchmark, or `None` if the benchmark's peers are not
/// installed.
pub fn python(bench: &str, script: &str) -> Option<Command> {
    let python = peers_folder(bench).join("venv/bin/python");
    python.is_file().then(|| script_command(python, bench, script))
}

/// Returns the command that runs a script of a benchmark.
///
/// A Python script can import the module `worker`, which is `benches/harness/worker.py`.
pub fn script_command(interpreter: impl AsRef<Path>, bench: &str, script: &str) -> Command {
    let mut command = Command::new(interpreter.as_ref());
    command
        .arg(repository().join("benches").join(bench).join(script))
        .env("PYTHONPATH", repository().join("benches/harness"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
