//! Formats the figures of a soak as Markdown tables.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use clap::CommandFactory;

use crate::{
    Outcome, Soak,
    checks::{MAX_MEMORY_KIB, MAX_TEXT},
    floods::ConnectionCounts,
    probes::{MAX_LIVE_GAP, ROUTES},
    program::MAX_SHUTDOWN,
};

/// Lines between which the report replaces the text of a document.
const MARKERS: [&str; 2] = ["<!-- soak: begin -->\n", "<!-- soak: end -->\n"];

/// The counts at the start of a phase.
pub(crate) struct PhaseStart {
    name: &'static str,
    start: Instant,
    accepted_count: usize,
    predicted_count: usize,
}

/// The goodput of a phase.
pub(crate) struct Phase {
    name: &'static str,
    duration: Duration,
    accepted_count: usize,
    predicted_count: usize,
}

impl PhaseStart {
    pub(crate) fn new(name: &'static str, soak: &Soak) -> Self {
        println!("phase: {name}");
        Self {
            name,
            start: Instant::now(),
            accepted_count: soak.uploads.accepted_count(),
            predicted_count: soak.uploads.predicted_count(),
        }
    }

    pub(crate) fn finish(self, soak: &Soak) -> Phase {
        Phase {
            name: self.name,
            duration: self.start.elapsed(),
            accepted_count: soak.uploads.accepted_count() - self.accepted_count,
            predicted_count: soak.uploads.predicted_count() - self.predicted_count,
        }
    }
}

/// Returns the report: tables of the promises, the goodput, the answers to the probes, and the load.
pub(crate) fn format(soak: &Soak, outcome: &Outcome, seconds: u64, seed: u64) -> String {
    let profile = if cfg!(debug_assertions) { "without optimisation" } else { "with optimisation" };
    let settings = changed_settings();
    let core_count = thread::available_parallelism().map_or(1, usize::from);
    let tables = [
        table(["promise", "measured", "at most"], promises(soak)),
        table(["phase", "seconds", "accepted uploads/s", "predictions/s"], goodput(outcome)),
        table(
            ["route", "longest time without an answer", "slowest answer", "slowest start", "200", "others"],
            probes(soak),
        ),
        table(["load and faults", "measured"], load(soak, outcome)),
    ];
    format!(
        "{seconds} seconds, compiled {profile}, {core_count} cores, seed {seed}, {settings}. A start is the time from \
         the start of a process to the first 200 of the route. The times without an answer do not include starts, and \
         the goodput does.\n\n{}",
        tables.join("\n")
    )
}

/// Lists the settings that the environment of the soak changes.
fn changed_settings() -> String {
    let command = image_pipeline::Config::command();
    let variables = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str());
    let settings: Vec<String> =
        variables.filter_map(|name| Some(format!("`{name}={}`", std::env::var(name).ok()?))).collect();
    if settings.is_empty() { "default settings".to_owned() } else { format!("with {}", settings.join(", ")) }
}

fn table<const N: usize>(columns: [&str; N], rows: Vec<[String; N]>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rows: String = rows.iter().map(|row| line(row)).collect();
    format!("{}|{}\n{rows}", line(&columns.map(str::to_owned)), "---|".repeat(N))
}

/// Returns the figures that have a bound.
fn promises(soak: &Soak) -> Vec<[String; 3]> {
    let program = &soak.program;
    let live = program.services.map(|service| soak.probes.of(service, "/live").worst_gap);
    let shutdowns = program.shutdowns.lock().unwrap();
    let mebibytes = |kibibytes| format!("{} MiB", kibibytes / 1024);
    let bytes = |count| format!("{count} bytes");
    [
        (
            "accepted uploads without a right prediction",
            soak.uploads.lost_count().to_string(),
            "0".to_owned(),
        ),
        ("longest time without an answer of `/live`", seconds(live[0].max(live[1])), seconds(MAX_LIVE_GAP)),
        (
            "longest time from SIGTERM to the end",
            seconds(shutdowns.iter().max().copied().unwrap_or_default()),
            seconds(MAX_SHUTDOWN),
        ),
        (
            "peak memory of a process",
            mebibytes(program.peak_memory.load(Ordering::SeqCst)),
            mebibytes(MAX_MEMORY_KIB),
        ),
        ("longest line of the log", bytes(count(&program.log.longest_line)), bytes(MAX_TEXT)),
        (
            "unexpected ends while the disk was healthy",
            count(&program.unexpected_end_count).to_string(),
            "0".to_owned(),
        ),
    ]
    .map(|(promise, measured, bound)| [promise.to_owned(), measured, bound])
    .into()
}

fn goodput(outcome: &Outcome) -> Vec<[String; 4]> {
    let rows = outcome.phases.iter().map(|phase| {
        let rate = |count: usize| format!("{:.1}", count as f64 / phase.duration.as_secs_f64());
        [
            phase.name.to_owned(),
            format!("{:.0}", phase.duration.as_secs_f64()),
            rate(phase.accepted_count),
            rate(phase.predicted_count),
        ]
    });
    rows.collect()
}

fn probes(soak: &Soak) -> Vec<[String; 6]> {
    let mut rows = Vec::new();
    for service in soak.program.services {
        for route in ROUTES {
            let probes = soak.probes.of(service, route);
            rows.push([
                format!("`{route}` of {}", service.name),
                seconds(probes.worst_gap),
                seconds(probes.worst_latency),
                seconds(probes.slowest_start),
                probes.ok_count.to_string(),
                probes.not_ok_count.to_string(),
            ]);
        }
    }
    rows
}

fn load(soak: &Soak, outcome: &Outcome) -> Vec<[String; 2]> {
    let program = &soak.program;
    let drain_end = if outcome.is_drained { "" } else { ", then a timeout" };
    let skipped = soak.disk.skipped_faults();
    let fault = |counter, name: &str| match skipped.iter().any(|line| line.contains(name)) {
        true => "not run: mounting is refused".to_owned(),
        false => format!("{} times", count(counter)),
    };
    let connections = |counts: &ConnectionCounts| {
        format!("{} opened, {} closed by the program", count(&counts.opened), count(&counts.closed))
    };
    [
        ("accepted uploads", soak.uploads.accepted_count().to_string()),
        ("refused requests of honest clients", soak.uploads.refusals.to_string()),
        ("time from the last upload to the last prediction", seconds(outcome.drain) + drain_end),
        ("`kill -9`", count(&program.kill_count).to_string()),
        ("SIGTERM", program.shutdowns.lock().unwrap().len().to_string()),
        ("full disk", fault(&soak.disk.full_count, "fills up")),
        ("read-only bucket", fault(&soak.disk.read_only_count, "read-only")),
        ("unexpected ends while the disk was broken", count(&program.end_count_on_broken_disk).to_string()),
        ("idle connections", connections(&soak.connections.idle)),
        ("slow connections", connections(&soak.connections.slow)),
        ("answers to the flood", soak.flood_answers.to_string()),
        ("answers to the bombs", soak.bomb_answers.to_string()),
        ("lines of the log", program.log.severities.to_string()),
    ]
    .map(|(name, measured)| [name.to_owned(), measured])
    .into()
}

fn count(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::SeqCst)
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Writes the report to a file, or between the markers of a document that has them.
pub(crate) fn write(path: &Path, report: &str) {
    let document = fs::read_to_string(path).unwrap_or_default();
    let text = match document.split_once(MARKERS[0]).map(|(head, rest)| (head, rest.split_once(MARKERS[1]))) {
        Some((head, Some((_, tail)))) => {
            format!("{head}{}\n{report}\n{}{tail}", MARKERS[0], MARKERS[1])
        }
        _ => report.to_owned(),
    };
    fs::write(path, text).unwrap();
}
