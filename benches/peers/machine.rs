//! What is measured on.

use std::{
    fs,
    process::{Command, exit},
};

use platform::cpu::cores;

use crate::repository;

/// Starts this program again on two cores where there are more; says what it runs on. A run that was
/// given two cores already (`taskset --cpu-list 2,4 cargo bench …`) keeps them.
pub(crate) fn keep_to_two_cores() -> String {
    let allowed = allowed_cores();
    if cores().get() <= 2 {
        return format!("{} cores (of {allowed})", cores());
    }
    let two: Vec<String> = listed(&allowed).take(2).map(|core| core.to_string()).collect();
    let again = Command::new("taskset")
        .args(["--cpu-list", &two.join(",")])
        .arg(std::env::current_exe().unwrap())
        .args(std::env::args_os().skip(1))
        .status();
    match again {
        Ok(status) => exit(status.code().unwrap_or(1)),
        Err(error) => format!("all {} cores, because taskset does not start ({error})", cores()),
    }
}

/// As the kernel writes it: `0-1`, or `0,2-3`.
fn allowed_cores() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    field(&status, "Cpus_allowed_list").unwrap_or("unknown").to_owned()
}

/// The cores of such a list, one by one.
fn listed(list: &str) -> impl Iterator<Item = usize> {
    list.split(',').flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse().unwrap()..=last.parse().unwrap()
    })
}

/// The value of a line `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines();
    lines.find_map(|line| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim()))
}

/// Resident memory of a process, now and at its most, in MB.
pub(crate) fn memory(process: u32) -> (f64, f64) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let megabytes = |name| {
        let kibibytes = field(&status, name).and_then(|value| value.split(' ').next()?.parse::<f64>().ok());
        kibibytes.unwrap() * 1024.0 / 1e6
    };
    (megabytes("VmRSS"), megabytes("VmHWM"))
}

/// Machine, date, what is measured (`subject`, whole lines), versions, and the `command` that does it.
pub(crate) fn describe(cores: &str, subject: &str, command: &str) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = field(&cpu, "model name").unwrap_or("unknown");
    let flags = field(&cpu, "flags").unwrap_or_default();
    let has = |flag: &str| flags.split(' ').any(|one| one == flag);
    let flags: Vec<&str> =
        ["avx2", "fma", "avx512f", "avx512_vnni"].into_iter().filter(|flag| has(flag)).collect();
    let flags = flags.join(", ");
    let date = said(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]));
    let commit = said(Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]));
    let rustc = said(Command::new("rustc").arg("--version"));
    // A run beside other work shows in its figures, and here.
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

/// What a program prints in the repository.
fn said(command: &mut Command) -> String {
    match command.current_dir(repository()).output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// The version of a crate that this was built with.
pub(crate) fn locked_version(name: &str) -> &'static str {
    let lock = include_str!("../../Cargo.lock");
    let package =
        lock.split("[[package]]").find(|package| package.contains(&format!("\nname = \"{name}\"\n")));
    let version = package.and_then(|package| package.split("\nversion = \"").nth(1)?.split('"').next());
    version.unwrap_or("of an unknown version")
}
