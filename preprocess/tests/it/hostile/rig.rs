//! What one file costs, measured in a process of its own: this program once more, with one test.

use std::{
    env, fs,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use cpu_time::ProcessTime;
use preprocess::image::{Outcome, Plan, Recipe, follow};

use crate::pictures::recipe;

/// Name of the test that is the other process.
const CHILD: &str = "hostile::rig::one_file_in_a_process_of_its_own";
/// Set for that process alone: how many bytes come through its standard input.
const LENGTH: &str = "HOSTILE_FILE_BYTES";
/// What its line of figures begins with.
const FIGURES: &str = "figures:";
/// A process that takes longer hangs. Nothing is measured with it.
const HANGS: Duration = Duration::from_secs(120);

/// What one file costs.
#[derive(Debug)]
pub(crate) struct Cost {
    /// `taken`, or the kind of the refusal.
    pub(crate) outcome: String,
    /// A decoder was given the file.
    pub(crate) decoded: bool,
    /// Most bytes that the plans for it promised.
    pub(crate) promised: u64,
    /// Most bytes of memory that the process had, above what it had with the file alone.
    pub(crate) peak: u64,
    /// CPU time, in milliseconds.
    pub(crate) milliseconds: u64,
}

/// Makes a picture of a file in a process of its own.
pub(crate) fn cost(file: &[u8]) -> Cost {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", CHILD, "--ignored", "--nocapture"])
        .env(LENGTH, file.len().to_string())
        // Of a panic that is caught: reading the names of its functions takes tens of megabytes.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(file).unwrap();
    let output = output(&mut child);
    // The harness leaves its own line without an end.
    let (_, figures) = output.split_once(FIGURES).unwrap_or_else(|| panic!("the process died: {output}"));
    let mut figures = figures.split_whitespace();
    let mut next = || figures.next().unwrap();
    Cost {
        outcome: next().to_owned(),
        decoded: next().parse().unwrap(),
        promised: next().parse().unwrap(),
        peak: next().parse().unwrap(),
        milliseconds: next().parse().unwrap(),
    }
}

/// All that the process writes until it ends.
fn output(child: &mut Child) -> String {
    let (sender, ended) = mpsc::channel();
    let mut stdout = child.stdout.take().unwrap();
    thread::spawn(move || {
        let mut output = String::new();
        stdout.read_to_string(&mut output).unwrap();
        sender.send(output).unwrap();
    });
    let output = ended.recv_timeout(HANGS);
    child.kill().unwrap();
    child.wait().unwrap();
    output.unwrap_or_else(|_| panic!("it hangs"))
}

#[test]
#[ignore = "a part of the tests of hostile files, which start it"]
fn one_file_in_a_process_of_its_own() {
    let Ok(length) = env::var(LENGTH) else { return };
    // In one piece: growing it would leave holes for what is to be measured.
    let mut file = vec![0; length.parse().unwrap()];
    std::io::stdin().read_exact(&mut file).unwrap();
    let recipe = recipe();
    let (before, started) = (resident_now(), ProcessTime::now());
    let (outcome, decoded, promised) = make(&file, &recipe);
    let milliseconds = started.elapsed().as_millis();
    let peak = most_resident().saturating_sub(before);
    println!("{FIGURES} {outcome} {decoded} {promised} {peak} {milliseconds}");
}

fn make(file: &[u8], recipe: &Recipe) -> (String, bool, u64) {
    let mut promised = 0;
    let mut next = Plan::of(file, recipe);
    let mut decoded = false;
    loop {
        let plan = match next {
            Ok(plan) => plan,
            Err(error) => return (error.kind().to_owned(), decoded, promised),
        };
        promised = promised.max(plan.cost().bytes);
        decoded = true;
        next = match follow(&plan, file, recipe) {
            Ok(Outcome::Done(_)) => return ("taken".to_owned(), decoded, promised),
            Ok(Outcome::Next(plan)) => Ok(*plan),
            Err(error) => Err(error),
        };
    }
}

/// Resident bytes now, from where the peak is measured anew.
pub(crate) fn resident_now() -> u64 {
    fs::write("/proc/self/clear_refs", "5").unwrap();
    most_resident()
}

/// The most resident bytes since then.
pub(crate) fn most_resident() -> u64 {
    status("VmHWM:")
}

/// A line of the process's status, in bytes.
fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}
