//! Implements the line protocol between a benchmark and the processes that do the measured work.
//!
//! `worker.py` documents the protocol. [`Worker`] is the benchmark's side. [`serve`] is the worker's side for
//! workers in Rust. A worker consists of one or more instances, which run a job at the same time.

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

/// A worker process. Dropping this value kills the process.
pub struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// The name that the worker printed when it was ready. Until then, the command that started the worker.
    name: String,
}

/// Times that one call of [`Worker::run`] took.
pub struct RunTimes {
    /// CPU time of the whole process, in user and in system mode.
    pub cpu: Duration,
    /// Wall-clock time from the start of the first repetition to the end of the last.
    pub wall: Duration,
    /// Durations of all repetitions on all instances.
    pub durations: Vec<Duration>,
}

impl Worker {
    /// Starts a worker and waits until it is ready.
    ///
    /// # Errors
    /// Returns the reason that the worker gives for not starting.
    pub fn start(command: &mut Command) -> Result<Self, String> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| format!("{command:?} does not start: {error}"))?;
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let name = format!("{command:?}");
        let mut worker = Self { child, input, output: BufReader::new(output), name };
        worker.name = worker.read_answer("ready ")?;
        Ok(worker)
    }

    /// Returns the name and versions that the worker printed when it was ready.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the worker load a job and keep it in memory.
    ///
    /// # Errors
    /// Returns the reason that the worker gives for not loading the job.
    pub fn load(&mut self, job: &str, arguments: &str) -> Result<(), String> {
        self.send(&format!("load {job} {arguments}"), "done").map(drop)
    }

    /// Runs a job `repetitions` times on every instance of the worker.
    ///
    /// # Errors
    /// Returns the reason that the worker gives for failing.
    pub fn run(&mut self, job: &str, repetitions: usize) -> Result<RunTimes, String> {
        let answer = self.send(&format!("run {job} {repetitions}"), "")?;
        let mut durations = answer.split(' ').map(|value| Duration::from_nanos(value.parse().unwrap()));
        let (cpu, wall) = (durations.next().unwrap(), durations.next().unwrap());
        Ok(RunTimes { cpu, wall, durations: durations.collect() })
    }

    /// Runs a job once and returns the result.
    ///
    /// `folder` is the worker's working folder.
    ///
    /// # Errors
    /// Returns the reason that the worker gives for failing.
    pub fn result(&mut self, job: &str, folder: &Path) -> Result<Vec<u8>, String> {
        self.send(&format!("result {job} result"), "done")?;
        Ok(fs::read(folder.join("result")).unwrap())
    }

    /// Returns the resident memory of the worker.
    pub fn memory(&self) -> Memory {
        process_memory(self.child.id())
    }

    /// Resets the worker's peak memory to its current memory.
    pub fn reset_peak_memory(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    /// Sends a command and reads the answer, which must begin with `expected`. Returns the rest of the
    /// answer.
    fn send(&mut self, command: &str, expected: &str) -> Result<String, String> {
        let sent = writeln!(self.input, "{command}").and_then(|()| self.input.flush());
        sent.map_err(|error| format!("{}: sending {command:?} failed: {error}", self.name))?;
        self.read_answer(expected)
    }

    /// Reads an answer, which must begin with `expected`. Returns the rest of the answer.
    fn read_answer(&mut self, expected: &str) -> Result<String, String> {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let answer = line.trim_end();
        if let Some(reason) = answer.strip_prefix("error ") {
            return Err(reason.to_owned());
        }
        let rest = answer.strip_prefix(expected).filter(|_| line.ends_with('\n'));
        rest.map(str::to_owned)
            .ok_or_else(|| format!("{} gave an invalid answer, see its error output: {line:?}", self.name))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both calls fail only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An instance of a worker in Rust: a function that runs a job once, on a thread of its own.
pub type WorkerInstance<Job, Output> = Box<dyn FnMut(&Job) -> Output + Send>;

/// Order to the thread of an instance: the job, the number of repetitions, and a barrier that makes all
/// threads start the job together.
type Order<Job> = (Arc<Job>, usize, Arc<Barrier>);
/// Report from the thread of an instance: the start of the first repetition, the end of the last repetition,
/// the duration of each repetition, and the last output.
type Report<Output> = (Instant, Instant, Vec<Duration>, Option<Output>);

/// Answers the commands on standard input until standard input is closed. `worker.py` describes the
/// commands.
///
/// `load` creates a job from the arguments of a `load` command. `to_bytes` converts an output to the bytes
/// that the benchmark checks. Each instance stays on the same thread, so that the instance can reuse
/// thread-local memory.
pub fn serve<Job: Send + Sync + 'static, Output: Send + 'static>(
    name: &str,
    load: impl Fn(&[&str]) -> Job,
    instances: Vec<WorkerInstance<Job, Output>>,
    to_bytes: impl Fn(Output) -> Vec<u8>,
) {
    panic::set_hook(Box::new(|info| {
        println!("error failed: {}", info.to_string().lines().last().unwrap_or_default());
        eprintln!("{info}");
        exit(1);
    }));
    let (report_sender, reports) = mpsc::channel::<Report<Output>>();
    let order_senders = instances.into_iter().map(|mut instance| {
        let (order_sender, orders) = mpsc::channel::<Order<Job>>();
        let report_sender = report_sender.clone();
        thread::spawn(move || {
            for (job, repetitions, barrier) in orders {
                barrier.wait();
                let (start, mut last_output) = (Instant::now(), None);
                let durations = (1..=repetitions).map(|repetition| {
                    let repetition_start = Instant::now();
                    let output = black_box(instance(&job));
                    // The measured time includes freeing the output, as in the workers in Python. The last
                    // output is kept for the report.
                    match repetition < repetitions {
                        true => drop(output),
                        false => last_output = Some(output),
                    }
                    repetition_start.elapsed()
                });
                let durations = durations.collect();
                report_sender.send((start, Instant::now(), durations, last_output)).unwrap();
            }
        });
        order_sender
    });
    let order_senders: Vec<mpsc::Sender<Order<Job>>> = order_senders.collect();
    let run_on = |senders: &[mpsc::Sender<Order<Job>>], job: &Arc<Job>, repetitions| {
        let barrier = Arc::new(Barrier::new(senders.len()));
        for sender in senders {
            sender.send((job.clone(), repetitions, barrier.clone())).unwrap();
        }
        reports.iter().take(senders.len()).collect::<Vec<Report<Output>>>()
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
            ["run", job, repetitions] => {
                let cpu_start = ProcessTime::now();
                let reports = run_on(&order_senders, &jobs[job], repetitions.parse().unwrap());
                let cpu = cpu_start.elapsed();
                let start = reports.iter().map(|&(start, ..)| start).min().unwrap();
                let end = reports.iter().map(|&(_, end, ..)| end).max().unwrap();
                let durations = reports.iter().flat_map(|(.., durations, _)| durations);
                let totals = [cpu, end - start];
                let times = totals.iter().chain(durations).map(|time| time.as_nanos().to_string());
                println!("{}", times.collect::<Vec<_>>().join(" "));
            }
            ["result", job, file] => {
                let (.., output) = run_on(&order_senders[..1], &jobs[job], 1).remove(0);
                fs::write(file, to_bytes(output.unwrap())).unwrap();
                println!("done");
            }
            _ => panic!("not a command: {line:?}"),
        }
    }
}
