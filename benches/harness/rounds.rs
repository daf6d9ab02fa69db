//! Contenders that run in turns, so that a disturbance of the machine affects all of them alike.

use std::time::Duration;

use crate::{Series, Worker, milliseconds, series::median_and_best};

/// A worker and its measurements, one per job; `None` for a job that it is not measured with.
pub struct Contender {
    /// The process that does the jobs.
    pub worker: Worker,
    /// In the order of the jobs.
    pub measurements: Vec<Option<Measurement>>,
}

/// Figures of one worker with one job.
#[derive(Default)]
pub struct Measurement {
    job: String,
    runs_per_round: usize,
    /// Milliseconds of CPU time per run.
    pub cpu: Series,
    /// Milliseconds per run: the median of each round.
    pub median: Series,
    /// Milliseconds per run: the minimum of each round.
    pub least: Series,
    /// Runs per second, of all instances together.
    pub throughput: Series,
}

impl Measurement {
    /// Warms the worker up with a loaded job and finds the number of runs that fill `slice`.
    ///
    /// # Errors
    /// The reason that the worker gives for failing.
    pub fn prepare(worker: &mut Worker, job: &str, slice: Duration) -> Result<Self, String> {
        let mut runs_per_round = 1;
        if !slice.is_zero() {
            worker.run(job, 5)?;
            let wall = worker.run(job, 5)?.wall.as_secs_f64();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
            let runs = (5.0 * slice.as_secs_f64() / wall) as usize;
            runs_per_round = runs.max(1);
        }
        Ok(Self { job: job.to_owned(), runs_per_round, ..Default::default() })
    }

    /// Runs the job for about `slice` and adds the figures of this round.
    ///
    /// # Errors
    /// The reason that the worker gives for failing.
    pub fn run_round(&mut self, worker: &mut Worker) -> Result<(), String> {
        let run = worker.run(&self.job, self.runs_per_round)?;
        let count = run.durations.len() as f64;
        self.cpu.add(milliseconds(run.cpu) / count);
        self.throughput.add(count / run.wall.as_secs_f64());
        let durations: Series = run.durations.into_iter().map(milliseconds).collect();
        self.median.add(durations.median());
        self.least.add(durations.min());
        Ok(())
    }

    /// Returns the ratio of another worker's CPU time to this one's, by medians and by best rounds.
    pub fn cpu_ratio(&self, other: &Self) -> (f64, f64) {
        (other.cpu.median() / self.cpu.median(), other.cpu.min() / self.cpu.min())
    }
}

/// Formats a ratio of medians with the ratio of best rounds in brackets.
pub fn format_ratio(ratio: (f64, f64)) -> String {
    median_and_best(ratio, 2)
}

/// Runs every contender with every job once per round, in an order that is reversed after each round.
///
/// `before_round` runs first in each round.
pub fn run_interleaved(
    rounds: usize,
    jobs: usize,
    mut contenders: Vec<&mut Contender>,
    mut before_round: impl FnMut(),
) {
    for _ in 0..rounds {
        before_round();
        for job in 0..jobs {
            for Contender { worker, measurements } in &mut contenders {
                if let Some(measurement) = &mut measurements[job] {
                    measurement.run_round(worker).unwrap();
                }
            }
        }
        // Otherwise each contender would always run after the same other one.
        contenders.reverse();
    }
}
