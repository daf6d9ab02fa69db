//! Engines in Python: a process that runs what a line asks for and answers with a line; see `worker.py`.

use std::{path::Path, process::Command, time::Duration};

use classify::model::CROP;

use crate::{
    engines::{Contender, Engine, ONE_THREAD, Run, SHARED_IMAGE, Setup, TWO_IMAGES},
    lines::LineProcess,
    peers_folder, repository,
};

/// A worker, which ends with this.
pub(crate) struct Worker(LineProcess);

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
            let line = worker.0.read();
            line.strip_prefix("ready ").unwrap_or_else(|| panic!("{script}: {line:?}")).to_owned()
        });
        let contenders = setups.into_iter().zip(workers);
        Some((version, contenders.map(|(setup, worker)| Contender::new(setup, Box::new(worker))).collect()))
    }

    fn start(script: &str, onnx: &Path, input: &Path, setup: Setup) -> Self {
        let mut command = python(script).unwrap();
        command
            .args([onnx, input])
            .args([CROP, setup.threads, setup.instances].map(|number| number.to_string()));
        Self(LineProcess::start(&mut command))
    }
}

impl Engine for Worker {
    fn logits(&mut self) -> Vec<f32> {
        self.0.ask("logits").split(' ').map(|value| value.parse().unwrap()).collect()
    }

    fn run(&mut self, times: usize) -> Run {
        let answer = self.0.ask(&format!("run {times}"));
        let mut nanoseconds = answer.split(' ').map(|value| Duration::from_nanos(value.parse().unwrap()));
        Run { wall: nanoseconds.next().unwrap(), durations: nanoseconds.collect() }
    }
}
