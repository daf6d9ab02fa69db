//! Describes the machine and the software versions that a benchmark runs with.

use std::{
    env, fs,
    process::{Command, exit},
    thread::available_parallelism,
};

use crate::repository;

/// Limits this program to two cores and returns a description of them.
///
/// If the program may use more cores, this function runs the program again with `taskset` and exits with the
/// status of that run. A program that is already limited to two cores, as by
/// `taskset --cpu-list 2,4 cargo bench …`, keeps these cores.
pub fn keep_to_two_cores() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    // The value looks like `0-1` or `0,2-3`.
    let allowed = find_field(&status, "Cpus_allowed_list").unwrap_or("unknown");
    let core_count = available_parallelism().map_or(1, usize::from);
    if core_count <= 2 {
        return format!("{core_count} cores (of {allowed})");
    }
    let core_numbers = allowed.split(',').flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse::<usize>().unwrap()..=last.parse().unwrap()
    });
    let two_cores: Vec<String> = core_numbers.take(2).map(|core| core.to_string()).collect();
    let mut restart = Command::new("taskset");
    restart
        .args(["--cpu-list", &two_cores.join(",")])
        .arg(env::current_exe().unwrap())
        .args(env::args_os().skip(1));
    match restart.status() {
        Ok(status) => exit(status.code().unwrap_or(1)),
        Err(error) => format!("all {core_count} cores, because taskset does not start ({error})"),
    }
}

/// Returns the value of the first line `name: value` in `text`.
fn find_field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines();
    lines.find_map(|line| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim()))
}

/// Resident memory of a process, in MB.
pub struct Memory {
    /// Resident memory at this moment.
    pub current: f64,
    /// Highest resident memory since the process started, or since its peak was reset.
    pub peak: f64,
}

/// Returns the resident memory of a process.
pub fn process_memory(process_id: u32) -> Memory {
    let status = fs::read_to_string(format!("/proc/{process_id}/status")).unwrap();
    let megabytes = |name| {
        let kibibytes =
            find_field(&status, name).and_then(|value| value.split(' ').next()?.parse::<f64>().ok());
        kibibytes.unwrap() * 1024.0 / 1e6
    };
    Memory { current: megabytes("VmRSS"), peak: megabytes("VmHWM") }
}

/// Returns a Markdown list that describes the machine, the date, the commit and the command.
///
/// `subject` is one or more further list items, which describe the measured programs.
pub fn describe(cores: &str, subject: &str, command: &str) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = find_field(&cpuinfo, "model name").unwrap_or("unknown");
    let flags: Vec<&str> = find_field(&cpuinfo, "flags").unwrap_or_default().split(' ').collect();
    let relevant = ["avx2", "fma", "avx512f", "avx512_vnni"].into_iter().filter(|flag| flags.contains(flag));
    let flags = relevant.collect::<Vec<_>>().join(", ");
    let date = output_of("date", &["-u", "+%Y-%m-%d %H:%M UTC"]);
    let commit = output_of("git", &["describe", "--always", "--dirty", "--abbrev=12"]);
    let rustc = output_of("rustc", &["--version"]);
    // Other work on the machine distorts the figures. The load average lets a reader notice that.
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    format!(
        "- Machine: {model} ({flags}), {cores}\n\
         - Date: {date}; load average of the minute before: {load}\n\
         {subject}\n\
         - This project: commit {commit}, {rustc}\n\
         - Command: `{command}`"
    )
}

/// Runs a program in the repository's root folder and returns its output, or `unknown` if it fails.
pub fn output_of(program: &str, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).current_dir(repository()).output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// Returns the name of a crate and its version in `Cargo.lock`.
pub fn locked_crate(name: &str) -> String {
    let lock = include_str!("../../Cargo.lock");
    let package =
        lock.split("[[package]]").find(|package| package.contains(&format!("\nname = \"{name}\"\n")));
    let version = package.and_then(|package| package.split("\nversion = \"").nth(1)?.split('"').next());
    format!("{name} {}", version.unwrap_or("of an unknown version"))
}
