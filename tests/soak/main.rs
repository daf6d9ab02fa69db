//! The soak: runs the program under load, hostile clients and faults, and checks that it keeps its promises.
//!
//! `cargo test --release --test soak` takes about 15 minutes, and `cargo test --release --test soak -- --help`
//! lists the options. The soak has three phases. Honest clients upload photos in all of them. The floods, the
//! bombs, the kills and the faults of the disk happen only in the second phase, so the first and the third
//! phase show the goodput of an undisturbed program.
//!
//! The exit status is 1 if a promise is broken: an accepted upload has no right prediction, the program stays
//! silent for too long or uses too much memory, its log has a bad line, or it ends too late after SIGTERM. It
//! is also 1 if a kind of attack or fault did not happen. Other times are reported and not checked, because
//! they depend on the machine.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a panic fails the soak, and its result is the printed report"
)]

mod bombs;
mod checks;
mod clients;
mod faults;
mod floods;
mod probes;
mod program;
mod report;

use std::{
    fs,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use clap::Parser;
use tokio_util::sync::CancellationToken;

use crate::{
    bombs::Bomb,
    checks::{BombTallies, LogChecks, Tally, Violations},
    clients::Uploads,
    faults::Disk,
    floods::Connections,
    probes::Probes,
    program::{Order, Program},
    report::Phase,
};

/// Maximum duration of the first and of the third phase. Each takes a sixth of a short soak.
const MAX_CALM_PHASE: Duration = Duration::from_secs(60);
/// Maximum time until the first process has started and has classified the samples.
const LABELS_TIMEOUT: Duration = Duration::from_secs(120);
/// Interval between two lines about the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// Number of file descriptors that the soak needs for its own connections.
const DESCRIPTORS: u64 = 8192;

/// Runs the program under load, hostile clients and faults, and checks that no accepted upload is lost
#[derive(Parser)]
#[command(name = "soak")]
struct Options {
    /// Duration of the three phases together, in seconds. Below 60, some attacks and faults may not happen,
    /// and the soak fails
    #[arg(long, default_value_t = 900)]
    seconds: u64,
    /// Seed of all random choices; a random one if it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// Markdown file for the report. In a file with the lines `<!-- soak: begin -->` and `<!-- soak: end -->`,
    /// the report replaces the text between them
    #[arg(long)]
    report: Option<PathBuf>,
    /// File for the log of the program
    #[arg(long)]
    log: Option<PathBuf>,
}

/// The state that all parts of the soak share.
struct Soak {
    program: Program,
    disk: Disk,
    violations: Violations,
    uploads: Uploads,
    probes: Probes,
    connections: Connections,
    /// Answers to the flood of `POST /classify`, by status.
    flood_answers: Tally,
    bomb_answers: BombTallies,
}

fn main() -> ExitCode {
    let options = Options::parse();
    raise_descriptor_limit();
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("soak: {} s, seed {seed}", options.seconds);

    let disk = Disk::create();
    let (program, orders) = Program::new(disk.data_folder(), LogChecks::new(options.log.as_deref()));
    let bombs = bombs::make_bombs(program.services);
    let soak = Arc::new(Soak {
        program,
        disk,
        violations: Violations::default(),
        uploads: Uploads::default(),
        probes: Probes::default(),
        connections: Connections::default(),
        flood_answers: Tally::default(),
        bomb_answers: BombTallies::new(&bombs),
    });
    let mut rng = fastrand::Rng::with_seed(seed);
    let supervisor = program::spawn_supervisor(&soak, orders, rng.fork());
    let probers = probes::spawn(&soak);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let outcome = runtime.block_on(async {
        let run = tokio::spawn(run(soak.clone(), Duration::from_secs(options.seconds), bombs, rng));
        tokio::select! {
            outcome = run => Some(outcome),
            _ = tokio::signal::ctrl_c() => None,
        }
    });
    // Whatever the outcome is, no process and no mount may stay behind.
    runtime.shutdown_timeout(Duration::from_secs(5));
    soak.probes.stop();
    soak.program.order(Order::Stop);
    let threads = std::iter::once(supervisor).chain(probers);
    let results: Vec<thread::Result<()>> = threads.map(JoinHandle::join).collect();
    soak.disk.unmount();
    if let Some(panic) = results.into_iter().find_map(Result::err) {
        print_violations(&soak);
        std::panic::resume_unwind(panic);
    }
    let outcome = match outcome {
        Some(Ok(outcome)) => outcome,
        Some(Err(panic)) => {
            print_violations(&soak);
            std::panic::resume_unwind(panic.into_panic());
        }
        None => {
            println!("interrupted");
            return ExitCode::from(130);
        }
    };

    checks::check_totals(&soak);
    let report = report::format(&soak, &outcome, options.seconds, seed);
    println!("\n{report}");
    if let Some(path) = options.report {
        report::write(&path, &report);
    }
    for line in soak.disk.skipped_faults() {
        println!("SKIPPED: {line}");
    }
    if print_violations(&soak) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints every kind of violation, and returns their number.
fn print_violations(soak: &Soak) -> usize {
    let violations = [soak.violations.lines(), soak.program.log.violations.lines()].concat();
    for line in &violations {
        println!("VIOLATION: {line}");
    }
    violations.len()
}

/// Phases of a finished soak, and the duration of its last steps.
struct Outcome {
    phases: Vec<Phase>,
    /// Time between the last upload and the last missing prediction, or the timeout of this wait.
    drain: Duration,
    is_drained: bool,
}

/// Runs the three phases, waits for the missing predictions, and checks every accepted upload.
async fn run(soak: Arc<Soak>, duration: Duration, bombs: Vec<Bomb>, mut rng: fastrand::Rng) -> Outcome {
    let (soak, rng) = (&soak, &mut rng);
    tokio::time::timeout(LABELS_TIMEOUT, soak.uploads.learn_labels(soak))
        .await
        .expect("the program starts and classifies the samples");
    let calm = MAX_CALM_PHASE.min(duration / 6);
    let mut phases = Vec::new();
    let honest_clients = clients::spawn(soak, rng);
    let progress = tokio::spawn(print_progress(soak.clone()));

    let phase = report::PhaseStart::new("before", soak);
    tokio::time::sleep(calm).await;
    phases.push(phase.finish(soak));

    let phase = report::PhaseStart::new("during", soak);
    let stop = CancellationToken::new();
    soak.program.allow_kills(true);
    let mut attacks = floods::spawn(soak, rng, &stop);
    attacks.push(bombs::spawn(soak, bombs, rng.fork(), &stop));
    attacks.push(faults::spawn(soak, rng.fork(), &stop));
    tokio::time::sleep(duration - 2 * calm).await;
    phases.push(phase.finish(soak));
    stop.cancel();
    for attack in attacks {
        attack.await.unwrap();
    }
    soak.program.allow_kills(false);
    checks::check_attacks(soak);

    let phase = report::PhaseStart::new("after", soak);
    tokio::time::sleep(calm).await;
    phases.push(phase.finish(soak));

    let drain_start = Instant::now();
    let is_drained = honest_clients.drain().await;
    let drain = drain_start.elapsed();
    progress.abort();
    // The new process must read every prediction from the disk.
    soak.program.order(Order::Kill);
    checks::check_every_upload(soak).await;
    Outcome { phases, drain, is_drained }
}

/// Prints a line every ten seconds.
async fn print_progress(soak: Arc<Soak>) {
    let start = Instant::now();
    loop {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        println!(
            "{:5} s: {} uploads, {} predictions, process {}",
            start.elapsed().as_secs(),
            soak.uploads.accepted_count(),
            soak.uploads.predicted_count(),
            soak.program.life().number
        );
    }
}

/// Runs the soak again with a higher limit of open files, if the limit is too low for its connections.
fn raise_descriptor_limit() {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let soft_limit = line.split_whitespace().next().unwrap();
    if soft_limit.parse::<u64>().is_ok_and(|limit| limit < DESCRIPTORS) {
        let error = Command::new("sh")
            .args(["-c", &format!("ulimit -n {DESCRIPTORS} && exec \"$0\" \"$@\"")])
            .arg(std::env::current_exe().unwrap())
            .args(std::env::args_os().skip(1))
            .exec();
        panic!("cannot run sh: {error}");
    }
}
