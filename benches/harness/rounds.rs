//! Runs the contenders of a benchmark, which are this project and its peers, in interleaved rounds.
//!
//! In each round, every contender runs each of its jobs. So other work on the machine affects all contenders
//! alike.

use std::time::Duration;

use crate::{Series, Worker, milliseconds, series::median_and_best};

/// Number of runs that warm up a worker. The same number of runs follows, to measure how long a run takes.
const WARM_UP_RUNS: usize = 5;

/// A worker and its measurements.
pub struct Contender {
    /// The process that runs the jobs.
    pub worker: Worker,
    /// One entry per job, in the order of the jobs. The entry is `None` if the worker is not measured with
    /// the job.
    pub measurements: Vec<Option<Measurement>>,
}

/// Figures of one worker with one job. Each round adds one figure to each series.
#[derive(Default)]
pub struct Measurement {
    job: String,
    runs_per_round: usize,
    /// Milliseconds of CPU time per run.
    pub cpu: Series,
    /// Median wall-clock milliseconds per run.
    pub median_duration: Series,
    /// Minimum wall-clock milliseconds per run.
    pub min_duration: Series,
    /// Runs per second of all instances together.
    pub throughput: Series,
}

impl Measurement {
    /// Warms up the worker with a loaded job and determines how many runs take about `round_duration`.
    ///
    /// If `round_duration` is zero, each round has one run and there is no warm-up.
    ///
    /// # Errors
    /// Returns the reason that the worker gives for failing.
    pub fn prepare(worker: &mut Worker, job: &str, round_duration: Duration) -> Result<Self, String> {
        let mut runs_per_round = 1;
        if !round_duration.is_zero() {
            worker.run(job, WARM_UP_RUNS)?;
            let wall = worker.run(job, WARM_UP_RUNS)?.wall.as_secs_f64();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
            let run_count = (WARM_UP_RUNS as f64 * round_duration.as_secs_f64() / wall) as usize;
            runs_per_round = run_count.max(1);
        }
        Ok(Self { job: job.to_owned(), runs_per_round, ..Default::default() })
    }

    /// Runs the job for the duration of a round and adds the figures of the round.
    ///
    /// # Errors
    /// Returns the reason that the worker gives for failing.
    pub fn run_round(&mut self, worker: &mut Worker) -> Result<(), String> {
        let times = worker.run(&self.job, self.runs_per_round)?;
        let run_count = times.durations.len() as f64;
        self.cpu.add(milliseconds(times.cpu) / run_count);
        self.throughput.add(run_count / times.wall.as_secs_f64());
        let durations: Series = times.durations.into_iter().map(milliseconds).collect();
        self.median_duration.add(durations.median());
        self.min_duration.add(durations.min());
        Ok(())
    }

    /// Returns the CPU time of `other` divided by the CPU time of this worker: the ratio of the medians and
    /// the ratio of the best rounds.
    pub fn cpu_ratio(&self, other: &Self) -> (f64, f64) {
        (other.cpu.median() / self.cpu.median(), other.cpu.min() / self.cpu.min())
    }
}

/// Formats the ratio of the medians, followed by the ratio of the best rounds in brackets.
pub fn format_ratio(ratio: (f64, f64)) -> String {
    median_and_best(ratio, 2)
}

/// Measures every contender with every job in each round.
///
/// `before_round` is called at the start of each round. The order of the contenders is reversed after each
/// round.
pub fn run_interleaved(
    round_count: usize,
    job_count: usize,
    mut contenders: Vec<&mut Contender>,
    mut before_round: impl FnMut(),
) {
    for _ in 0..round_count {
        before_round();
        for job in 0..job_count {
            for Contender { worker, measurements } in &mut contenders {
                if let Some(measurement) = &mut measurements[job] {
                    measurement.run_round(worker).unwrap();
                }
            }
        }
        // Without reversing, each contender would always run after the same other contender.
        contenders.reverse();
    }
}
