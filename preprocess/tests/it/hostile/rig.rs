//! Measures the memory and the CPU time that processing one file needs.
//!
//! A separate process processes the file, so that other tests do not influence the measurement. The process
//! is this test program, which runs only the test [`CHILD_TEST`].

use std::{
    env, fs,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use cpu_time::ProcessTime;
use preprocess::image::{PlanOutcome, ProcessingPlan, Recipe, run_plan};

use crate::test_image::recipe;

/// Name of the test that runs in the separate process.
const CHILD_TEST: &str = "hostile::rig::measurement_process";
/// Environment variable with the length of the file. The separate process reads the file from standard input.
const LENGTH_VARIABLE: &str = "HOSTILE_FILE_BYTES";
/// Text before the measurement in the output of the process.
const FIGURES_LABEL: &str = "figures:";
/// Outcome of a file that gives an image.
pub(crate) const PROCESSED: &str = "processed";
/// Timeout after which the separate process is killed. No file needs nearly as long.
const HANG_TIMEOUT: Duration = Duration::from_secs(120);

/// Outcome and cost of processing one file.
#[derive(Debug)]
pub(crate) struct Measurement {
    /// [`PROCESSED`], or the kind of the error.
    pub(crate) outcome: String,
    /// True if a decoder was started.
    pub(crate) decoded: bool,
    /// Largest number of bytes that a plan for the file states.
    pub(crate) planned_bytes: u64,
    /// Peak of the resident memory, minus the resident memory after the file was loaded.
    pub(crate) peak_bytes: u64,
    /// CPU time in milliseconds.
    pub(crate) cpu_milliseconds: u64,
}

/// Processes a file in a separate process and measures the cost.
pub(crate) fn measure(file: &[u8]) -> Measurement {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", CHILD_TEST, "--ignored", "--nocapture"])
        .env(LENGTH_VARIABLE, file.len().to_string())
        // The backtrace of a caught panic would need tens of megabytes for symbol names.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(file).unwrap();
    let output = read_output(&mut child);
    // The label can be in the middle of a line, because the test harness prints the name of the test first.
    let (_, figures) = output
        .split_once(FIGURES_LABEL)
        .unwrap_or_else(|| panic!("the process printed no measurement: {output}"));
    let mut figures = figures.split_whitespace();
    let mut next_figure = || figures.next().unwrap();
    Measurement {
        outcome: next_figure().to_owned(),
        decoded: next_figure().parse().unwrap(),
        planned_bytes: next_figure().parse().unwrap(),
        peak_bytes: next_figure().parse().unwrap(),
        cpu_milliseconds: next_figure().parse().unwrap(),
    }
}

/// Reads the output of the process until the process exits.
fn read_output(child: &mut Child) -> String {
    let (sender, receiver) = mpsc::channel();
    let mut stdout = child.stdout.take().unwrap();
    thread::spawn(move || {
        let mut output = String::new();
        stdout.read_to_string(&mut output).unwrap();
        sender.send(output).unwrap();
    });
    let output = receiver.recv_timeout(HANG_TIMEOUT);
    child.kill().unwrap();
    child.wait().unwrap();
    output.unwrap_or_else(|_| panic!("the process did not end within {HANG_TIMEOUT:?}"))
}

#[test]
#[ignore = "the tests of hostile files start it in a separate process"]
fn measurement_process() {
    let Ok(length) = env::var(LENGTH_VARIABLE) else { return };
    // The buffer has its final size from the start. A growing buffer would leave free memory behind, which
    // the processing could use without raising the peak.
    let mut file = vec![0; length.parse().unwrap()];
    std::io::stdin().read_exact(&mut file).unwrap();
    let recipe = recipe();
    let (resident_before, cpu_start) = (reset_peak_resident_bytes(), ProcessTime::now());
    let (outcome, decoded, planned_bytes) = process_file(&file, &recipe);
    let milliseconds = cpu_start.elapsed().as_millis();
    let peak = peak_resident_bytes().saturating_sub(resident_before);
    println!("{FIGURES_LABEL} {outcome} {decoded} {planned_bytes} {peak} {milliseconds}");
}

/// Processes a file.
///
/// Returns the outcome, true if a decoder was started, and the largest number of bytes that a plan states.
fn process_file(file: &[u8], recipe: &Recipe) -> (String, bool, u64) {
    let mut planned_bytes = 0;
    let mut next_plan = ProcessingPlan::new(file, recipe);
    let mut decoded = false;
    loop {
        let plan = match next_plan {
            Ok(plan) => plan,
            Err(error) => return (error.kind().to_owned(), decoded, planned_bytes),
        };
        planned_bytes = planned_bytes.max(plan.cost().bytes);
        decoded = true;
        next_plan = match run_plan(&plan, file, recipe) {
            Ok(PlanOutcome::Done(_)) => return (PROCESSED.to_owned(), decoded, planned_bytes),
            Ok(PlanOutcome::TryNext(plan)) => Ok(*plan),
            Err(error) => Err(error),
        };
    }
}

/// Resets the peak of the resident memory and returns the current resident bytes.
pub(crate) fn reset_peak_resident_bytes() -> u64 {
    fs::write("/proc/self/clear_refs", "5").unwrap();
    peak_resident_bytes()
}

/// Returns the peak of the resident bytes since the last reset.
pub(crate) fn peak_resident_bytes() -> u64 {
    read_process_status("VmHWM:")
}

/// Reads a value in kilobytes from `/proc/self/status`, and returns it in bytes.
fn read_process_status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}
