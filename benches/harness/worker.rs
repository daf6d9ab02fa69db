//! The line protocol between a benchmark and the processes that do the measured work.
//!
//! `worker.py` documents the protocol. [`Worker`] is the benchmark's side; [`serve`] is the other side for
//! workers in Rust.

use std::{
    collections::HashMap,
    fs,
    hint::black_box,
    io::{BufRead, BufReader, Write},
    panic,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio, exit},
    sync::{Arc, Barrier, mpsc},
    thread,
    time::{Duration, Instant},
};

use cpu_time::ProcessTime;

use crate::machine::{Memory, process_memory};

/// A worker process; dropping it kills the process.
pub struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    name: String,
}

/// Times of one `run` command.
pub struct Run {
    /// CPU time of the whole process, user and system.
    pub cpu: Duration,
    /// From the first start to the last end.
    pub wall: Duration,
    /// Duration of each repetition on each instance.
    pub durations: Vec<Duration>,
}

impl Worker {
    /// Starts a worker and waits until it is ready.
    ///
    /// # Errors
    /// The reason that the worker gives for not starting.
    pub fn start(command: &mut Command) -> Result<Self, String> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| format!("{command:?} does not start: {error}"))?;
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let name = format!("{command:?}");
        let mut worker = Self { child, input, output: BufReader::new(output), name };
        worker.name = worker.read("ready ")?;
        Ok(worker)
    }

    /// Returns the worker's name and versions.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the worker a job to hold in memory.
    ///
    /// # Errors
    /// The reason that the worker gives for not loading it.
    pub fn load(&mut self, job: &str, arguments: &str) -> Result<(), String> {
        self.send(&format!("load {job} {arguments}"), "done").map(drop)
    }

    /// Repeats a job on every instance of the worker.
    ///
    /// # Errors
    /// The reason that the worker gives for failing.
    pub fn run(&mut self, job: &str, times: usize) -> Result<Run, String> {
        let answer = self.send(&format!("run {job} {times}"), "")?;
        let mut durations = answer.split(' ').map(|value| Duration::from_nanos(value.parse().unwrap()));
        let (cpu, wall) = (durations.next().unwrap(), durations.next().unwrap());
        Ok(Run { cpu, wall, durations: durations.collect() })
    }

    /// Does a job once and returns its result; `folder` is the worker's working folder.
    ///
    /// # Errors
    /// The reason that the worker gives for failing.
    pub fn result(&mut self, job: &str, folder: &Path) -> Result<Vec<u8>, String> {
        self.send(&format!("result {job} result"), "done")?;
        Ok(fs::read(folder.join("result")).unwrap())
    }

    /// Returns the resident memory of the worker.
    pub fn memory(&self) -> Memory {
        process_memory(self.child.id())
    }

    /// Makes the kernel forget the worker's peak memory, which restarts at the current value.
    pub fn reset_peak_memory(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    fn send(&mut self, command: &str, expected: &str) -> Result<String, String> {
        let sent = writeln!(self.input, "{command}").and_then(|()| self.input.flush());
        sent.map_err(|error| format!("{}: {error} at {command:?}", self.name))?;
        self.read(expected)
    }

    /// Reads one answer and returns the text after `expected`.
    fn read(&mut self, expected: &str) -> Result<String, String> {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let answer = line.trim_end();
        if let Some(reason) = answer.strip_prefix("error ") {
            return Err(reason.to_owned());
        }
        let rest = answer.strip_prefix(expected).filter(|_| line.ends_with('\n'));
        rest.map(str::to_owned).ok_or_else(|| format!("{} ended, see its output: {line:?}", self.name))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One instance of a Rust worker: does a job once.
pub type Instance<Job, Output> = Box<dyn FnMut(&Job) -> Output + Send>;

/// A command to an instance's thread: the job, its repetitions, and the barrier of all that run it.
type Order<Job> = (Arc<Job>, usize, Arc<Barrier>);
/// Start, end, each duration, and the last output.
type Report<Output> = (Instant, Instant, Vec<Duration>, Option<Output>);

/// Answers commands on standard input until it is closed; see `worker.py`.
///
/// `load` makes a job of its arguments and `bytes` turns a result into the bytes that are compared. Each
/// instance has a thread of its own for the whole time, so that memory it keeps per thread is reused.
pub fn serve<Job: Send + Sync + 'static, Output: Send + 'static>(
    name: &str,
    load: impl Fn(&[&str]) -> Job,
    instances: Vec<Instance<Job, Output>>,
    bytes: impl Fn(Output) -> Vec<u8>,
) {
    panic::set_hook(Box::new(|info| {
        println!("error failed: {}", info.to_string().lines().last().unwrap_or_default());
        eprintln!("{info}");
        exit(1);
    }));
    let (report, reports) = mpsc::channel::<Report<Output>>();
    let threads = instances.into_iter().map(|mut instance| {
        let (order, orders) = mpsc::channel::<Order<Job>>();
        let report = report.clone();
        thread::spawn(move || {
            for (job, times, barrier) in orders {
                barrier.wait();
                let (start, mut last) = (Instant::now(), None);
                let durations = (1..=times).map(|repetition| {
                    let start = Instant::now();
                    let output = black_box(instance(&job));
                    // Freeing a result is measured, as in the workers in Python.
                    match repetition < times {
                        true => drop(output),
                        false => last = Some(output),
                    }
                    start.elapsed()
                });
                let durations = durations.collect();
                report.send((start, Instant::now(), durations, last)).unwrap();
            }
        });
        order
    });
    let threads: Vec<mpsc::Sender<Order<Job>>> = threads.collect();
    let run_on = |threads: &[mpsc::Sender<Order<Job>>], job: &Arc<Job>, times| {
        let barrier = Arc::new(Barrier::new(threads.len()));
        threads.iter().for_each(|order| order.send((job.clone(), times, barrier.clone())).unwrap());
        reports.iter().take(threads.len()).collect::<Vec<Report<Output>>>()
    };

    let mut jobs = HashMap::new();
    println!("ready {name}");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["load", job, ref arguments @ ..] => {
                jobs.insert(job.to_owned(), Arc::new(load(arguments)));
                println!("done");
            }
            ["run", job, times] => {
                let cpu = ProcessTime::now();
                let reports = run_on(&threads, &jobs[job], times.parse().unwrap());
                let cpu = cpu.elapsed();
                let start = reports.iter().map(|&(start, ..)| start).min().unwrap();
                let end = reports.iter().map(|&(_, end, ..)| end).max().unwrap();
                let durations = reports.iter().flat_map(|(.., durations, _)| durations);
                let totals = [cpu, end - start];
                let times = totals.iter().chain(durations).map(|time| time.as_nanos().to_string());
                println!("{}", times.collect::<Vec<_>>().join(" "));
            }
            ["result", job, file] => {
                let (.., result) = run_on(&threads[..1], &jobs[job], 1).remove(0);
                fs::write(file, bytes(result.unwrap())).unwrap();
                println!("done");
            }
            _ => panic!("not a command: {line:?}"),
        }
    }
}
