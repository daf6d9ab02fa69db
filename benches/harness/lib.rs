//! The benchmarks share this code. It provides worker processes, interleaved rounds, medians and Markdown
//! tables.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark that fails ends the run, and its result is what it prints"
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
pub use worker::{Instance, Run, Worker, serve};

/// Returns the root folder of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// Returns true under `cargo bench`, false under `cargo test`, which only checks that the benchmark runs.
pub fn is_measured_run() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Prints that `what` is not measured and adds a sentence that says so to `notes`, which follow the tables.
pub fn skip(notes: &mut Vec<String>, what: &str) {
    println!("SKIPPED: {what}");
    notes.push(format!("Not measured: {what}."));
}

/// Returns the folder in which `benches/BENCH/install` installs the peers of the benchmark `bench`.
pub fn peers_folder(bench: &str) -> PathBuf {
    repository().join("target").join(bench)
}

/// Returns the command that runs a Python script of a benchmark, or `None` if `benches/BENCH/install` has not
/// run.
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
