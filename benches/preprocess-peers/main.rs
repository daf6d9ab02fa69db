//! From an upload's bytes to the stored picture's, beside what people would pick instead, in one run:
//! `cargo bench --bench preprocess_peers`.
//!
//! Everybody does the same: bytes in memory, shorter side 256, JPEG of this project's quality in full
//! colour, in memory. Every tool is a process on one thread, this project too: this program once more, with
//! an argument. It stays for the whole run and counts its own processor time, user and system. All take
//! turns on each picture, in rounds, so that a disturbance meets everything alike.
//! `benches/preprocess_peers/install` gets the peers; what is not there is told as SKIPPED. The table is
//! printed and written to `benches/preprocess_peers.md`, where it replaces the one of the same build: the
//! default one, or the one with `--features turbo`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a bench that fails ends the run")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

#[path = "../peers/figures.rs"]
#[expect(dead_code, reason = "the other bench uses more of it")]
mod figures;
mod goals;
mod jpeg;
#[path = "../peers/lines.rs"]
mod lines;
#[path = "../peers/machine.rs"]
mod machine;
mod measure;
mod ours;
mod pictures;
mod reference;
mod report;
#[path = "../peers/sections.rs"]
mod sections;
mod tools;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How much is measured.
struct Effort {
    /// Width and height of the large, the middle and the small picture.
    sizes: [(u32, u32); 3],
    rounds: usize,
    /// How long a tool works on a picture in a round.
    slice: Duration,
    /// How often each tool is started to see how much memory it takes.
    starts: usize,
}

const FULL: Effort = Effort {
    sizes: [(4000, 3000), (1632, 1224), (640, 480)],
    rounds: 20,
    slice: Duration::from_millis(60),
    starts: 5,
};

/// For `cargo test`, which only wants to see it run.
const QUICK: Effort =
    Effort { sizes: [(800, 600), (480, 360), (400, 300)], rounds: 1, slice: Duration::ZERO, starts: 1 };

/// What this was built as; the JPEG decoder is what differs.
const BUILD: &str = if cfg!(feature = "turbo") { "turbo" } else { "default" };

/// The folder of the repository.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where `benches/preprocess_peers/install` puts the peers.
fn peers_folder() -> PathBuf {
    repository().join("target/preprocess-peers")
}

/// Says that something is not measured, and why; for the table, too.
fn skipped(notes: &mut Vec<String>, what: &str) {
    println!("SKIPPED: {what}");
    notes.push(format!("Not measured: {what}."));
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [argument, threads] = &arguments[..]
        && argument == ours::ARGUMENT
    {
        return ours::serve(threads.parse().unwrap());
    }
    let cores = machine::keep_to_two_cores();
    // `cargo test` leaves this flag out.
    let full = arguments.iter().any(|argument| argument == "--bench");
    let effort = if full { FULL } else { QUICK };

    let mut notes = Vec::new();
    if !full {
        notes.push("A trial: one round with small pictures. Its figures mean nothing.".to_owned());
    }
    let folder = tempfile::tempdir().unwrap();
    let pictures = pictures::make(folder.path(), effort.sizes, &mut notes);
    let measured = measure::measure(folder.path(), &pictures, &effort, &mut notes);
    let section = report::section(&cores, &pictures, &measured, &notes);
    println!("\n{section}");
    if full {
        sections::write(&repository().join("docs/benchmarks/preprocess-peers.md"), report::TITLE, &section);
    }
}
