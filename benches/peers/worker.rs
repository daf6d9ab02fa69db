//! Engines in Python: a process that runs what a line asks for and answers with a line; see `worker.py`.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use classify::network::CROP;

use crate::{
    engines::{Contender, Engine, ONE_THREAD, Run, SHARED_IMAGE, Setup, TWO_IMAGES},
    peers_folder, repository,
};

/// A worker, which ends with this.
pub(crate) struct Worker {
    child: Child,
    lines_in: ChildStdin,
    lines_out: BufReader<ChildStdout>,
}

/// The Python of `benches/peers/install`, with `script`; `None` if it was not installed.
pub(crate) fn python(script: &str) -> Option<Command> {
    let python = peers_folder().join("venv/bin/python");
    if !python.is_file() {
        return None;
    }
    let mut command = Command::new(python);
    command.arg(repository().join("benches/peers").join(script)).env("PYTHONDONTWRITEBYTECODE", "1");
    Some(command)
}

impl Worker {
    /// A worker for each setup, and the version of what it runs; `None` if Python is not installed.
    pub(crate) fn start_all(script: &str, onnx: &Path, nchw: &[f32]) -> Option<(String, Vec<Contender>)> {
        python(script)?;
        let input = peers_folder().join("input.f32");
        std::fs::write(&input, nchw.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
            .unwrap();
        let setups = [ONE_THREAD, SHARED_IMAGE, TWO_IMAGES];
        let mut workers = setups.map(|setup| Self::start(script, onnx, &input, setup));
        let [version, ..] = workers.each_mut().map(|worker| {
            let line = worker.read();
            line.strip_prefix("ready ").unwrap_or_else(|| panic!("{script}: {line:?}")).to_owned()
        });
        let contenders = setups.into_iter().zip(workers);
        Some((version, contenders.map(|(setup, worker)| Contender::new(setup, Box::new(worker))).collect()))
    }

    fn start(script: &str, onnx: &Path, input: &Path, setup: Setup) -> Self {
        let mut child = python(script)
            .unwrap()
            .args([onnx, input])
            .args([CROP, setup.threads, setup.instances].map(|number| number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines_in = child.stdin.take().unwrap();
        let lines_out = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines_in, lines_out }
    }

    fn read(&mut self) -> String {
        let mut line = String::new();
        self.lines_out.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "a worker ended before it answered");
        line.trim_end().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.lines_in, "{line}").unwrap();
        self.lines_in.flush().unwrap();
        self.read()
    }
}

impl Engine for Worker {
    fn logits(&mut self) -> Vec<f32> {
        self.ask("logits").split(' ').map(|value| value.parse().unwrap()).collect()
    }

    fn run(&mut self, times: usize) -> Run {
        let answer = self.ask(&format!("run {times}"));
        let mut nanoseconds = answer.split(' ').map(|value| Duration::from_nanos(value.parse().unwrap()));
        Run { wall: nanoseconds.next().unwrap(), durations: nanoseconds.collect() }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended already was told by its missing answer.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
