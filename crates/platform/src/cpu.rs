//! A thread pool for CPU work. It accepts a bounded number of jobs, and keeps them off the worker threads of
//! tokio.
//!
//! Each job has a weight, which is its cost in pixels. The total weight of the accepted jobs is bounded, too.
//!
//! ```
//! use std::num::NonZeroUsize;
//!
//! use platform::cpu::{CpuError, CpuLimits, CpuPool};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limits = CpuLimits { threads: NonZeroUsize::MIN, max_jobs: 1, max_weight: 1_000_000 };
//! let pool = CpuPool::new("example", limits)?;
//!
//! // A job of 640 × 480 pixels runs on a thread of the pool, and its result is returned.
//! let sum = pool.run(640 * 480, || (1..=10).sum::<u32>()).await?;
//! assert_eq!(sum, 55);
//!
//! // A permit reserves capacity for a job before the input of the job is ready. One permit fills this pool.
//! let permit = pool.try_acquire(640 * 480)?;
//! assert_eq!(pool.run(1, || ()).await, Err(CpuError::Overloaded));
//! assert_eq!(pool.run_with_permit(permit, || "done").await?, "done");
//! assert!(!pool.is_full());
//! # Ok(())
//! # }
//! ```

use std::{
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// Returns the number of cores that this process may use.
pub fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Limits of a [`CpuPool`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuLimits {
    /// Number of threads in the pool.
    pub threads: NonZeroUsize,
    /// Maximum number of accepted jobs. Waiting and running jobs are both counted.
    pub max_jobs: usize,
    /// Maximum total weight of the accepted jobs, in pixels. A job whose own weight exceeds the maximum is
    /// accepted if the pool has no other job.
    pub max_weight: u64,
}

/// Reason why a job was refused or has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CpuError {
    /// The limits of the pool do not allow another job now. The same call may succeed later.
    #[error("the queue for CPU work is full")]
    Overloaded,
    /// The job panicked. The pool still accepts other jobs.
    #[error("the job panicked")]
    Panicked,
}

/// A rayon thread pool that accepts a bounded number and weight of jobs.
#[derive(Debug)]
pub struct CpuPool {
    pool: rayon::ThreadPool,
    limiter: Arc<Limiter>,
}

impl CpuPool {
    /// Starts a pool. Its threads are called `<name>-cpu-<index>`, and its gauges `<name>_cpu_pending` and
    /// `<name>_cpu_ongoing`.
    ///
    /// # Errors
    /// Returns an error if the threads cannot be started.
    pub fn new(name: &'static str, limits: CpuLimits) -> std::io::Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(limits.threads.get())
            .thread_name(move |index| format!("{name}-cpu-{index}"))
            // Without a handler, rayon aborts the process at a panic. `run_with_permit` catches the panics of
            // jobs, but not a panic in the destructor of a result that no caller waits for. The handler does
            // not log the panic, because the panic hook has done so.
            .panic_handler(|_payload| {})
            .build()
            .map_err(std::io::Error::other)?;
        Ok(Self { pool, limiter: Arc::new(Limiter::new(name, limits)) })
    }

    /// Reserves capacity for a job of `weight` pixels that [`Self::run_with_permit`] will run later.
    ///
    /// # Errors
    /// Returns [`CpuError::Overloaded`] if the limits do not allow another job of this weight.
    pub fn try_acquire(&self, weight: u64) -> Result<CpuPermit, CpuError> {
        self.limiter.try_acquire(weight)
    }

    /// Returns true if the pool has the maximum number of jobs, so that [`Self::try_acquire`] refuses any
    /// job.
    pub fn is_full(&self) -> bool {
        let usage = self.limiter.lock_usage();
        usage.pending + usage.ongoing >= self.limiter.limits.max_jobs
    }

    /// Runs `job` on the pool and returns its result. `weight` is the cost of the job in pixels.
    ///
    /// If this future is dropped before the job starts, the job does not run. If the job panics, the panic is
    /// caught.
    ///
    /// # Errors
    /// Returns [`CpuError::Overloaded`] if the limits do not allow another job of this weight, and
    /// [`CpuError::Panicked`] if the job panicked.
    pub async fn run<T, F>(&self, weight: u64, job: F) -> Result<T, CpuError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.run_with_permit(self.try_acquire(weight)?, job).await
    }

    /// Runs `job` like [`Self::run`], in the capacity that `permit` reserves.
    ///
    /// # Errors
    /// Returns [`CpuError::Panicked`] if the job panicked.
    pub async fn run_with_permit<T, F>(&self, mut permit: CpuPermit, job: F) -> Result<T, CpuError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let span = tracing::Span::current();
        self.pool.spawn(move || {
            if sender.is_closed() {
                return;
            }
            permit.mark_started();
            let result = span.in_scope(|| {
                // The panic hook has logged the panic, with the span of the caller.
                catch_unwind(AssertUnwindSafe(job)).map_err(|_payload| CpuError::Panicked)
            });
            // The capacity is released before the result is sent. Otherwise a caller that submits its next
            // job on receiving the result could be refused as overloaded.
            drop(permit);
            // Sending fails only if the caller has dropped its future and no longer needs the result.
            let _ = sender.send(result);
        });
        receiver.await.unwrap_or(Err(CpuError::Panicked))
    }
}

/// The limits of a pool and their current usage.
#[derive(Debug)]
struct Limiter {
    limits: CpuLimits,
    usage: Mutex<Usage>,
    pending_gauge: Arc<str>,
    ongoing_gauge: Arc<str>,
}

#[derive(Debug, Default)]
struct Usage {
    /// Number of permits whose jobs have not started.
    pending: usize,
    /// Number of jobs that are running.
    ongoing: usize,
    /// Total weight of the pending and the ongoing jobs, in pixels.
    weight: u64,
}

impl Limiter {
    fn new(name: &str, limits: CpuLimits) -> Self {
        Self {
            limits,
            usage: Mutex::default(),
            pending_gauge: format!("{name}_cpu_pending").into(),
            ongoing_gauge: format!("{name}_cpu_ongoing").into(),
        }
    }

    fn try_acquire(self: &Arc<Self>, weight: u64) -> Result<CpuPermit, CpuError> {
        let mut usage = self.lock_usage();
        let job_count = usage.pending + usage.ongoing;
        let weight_fits = job_count == 0 || usage.weight.saturating_add(weight) <= self.limits.max_weight;
        if job_count >= self.limits.max_jobs || !weight_fits {
            return Err(CpuError::Overloaded);
        }
        usage.pending += 1;
        usage.weight += weight;
        self.set_gauges(&usage);
        drop(usage);
        Ok(CpuPermit { limiter: Arc::clone(self), weight, started: false })
    }

    fn lock_usage(&self) -> MutexGuard<'_, Usage> {
        // The state behind a poisoned lock is still valid, because no code that holds the lock can panic in
        // the middle of an update.
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_gauges(&self, usage: &Usage) {
        let to_f64 = |count: usize| u32::try_from(count).map_or(f64::INFINITY, f64::from);
        metrics::gauge!(Arc::clone(&self.pending_gauge)).set(to_f64(usage.pending));
        metrics::gauge!(Arc::clone(&self.ongoing_gauge)).set(to_f64(usage.ongoing));
    }
}

/// The capacity of a [`CpuPool`] that is reserved for one job. Dropping the permit releases the capacity.
#[derive(Debug)]
pub struct CpuPermit {
    limiter: Arc<Limiter>,
    weight: u64,
    started: bool,
}

impl CpuPermit {
    fn mark_started(&mut self) {
        let mut usage = self.limiter.lock_usage();
        usage.pending -= 1;
        usage.ongoing += 1;
        self.started = true;
        self.limiter.set_gauges(&usage);
    }
}

impl Drop for CpuPermit {
    fn drop(&mut self) {
        let mut usage = self.limiter.lock_usage();
        if self.started {
            usage.ongoing -= 1;
        } else {
            usage.pending -= 1;
        }
        usage.weight -= self.weight;
        self.limiter.set_gauges(&usage);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn new_pool(threads: usize, max_jobs: usize, max_weight: u64) -> Arc<CpuPool> {
        let threads = NonZeroUsize::new(threads).unwrap();
        Arc::new(CpuPool::new("test", CpuLimits { threads, max_jobs, max_weight }).unwrap())
    }

    /// Starts a job that runs until the returned blocker is dropped. Returns when the job is running.
    async fn start_blocked_job(
        pool: &Arc<CpuPool>,
        weight: u64,
    ) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<u32, CpuError>>) {
        let (blocker, unblocked) = mpsc::channel();
        let (started, has_started) = oneshot::channel();
        let pool = Arc::clone(pool);
        let job = tokio::spawn(async move {
            pool.run(weight, move || {
                started.send(()).unwrap();
                let _ = unblocked.recv();
                42
            })
            .await
        });
        has_started.await.unwrap();
        (blocker, job)
    }

    #[tokio::test]
    async fn job_runs_on_a_pool_thread_and_returns_its_result() {
        let thread = new_pool(2, 4, 10).run(1, || std::thread::current().name().map(str::to_owned)).await;
        assert!(thread.unwrap().unwrap().starts_with("test-cpu-"));
    }

    #[tokio::test]
    async fn job_beyond_max_jobs_is_refused() {
        let pool = new_pool(1, 1, 100);
        assert!(!pool.is_full());
        let (blocker, running_job) = start_blocked_job(&pool, 1).await;
        assert!(pool.is_full());
        assert_eq!(pool.run(1, || ()).await, Err(CpuError::Overloaded));
        drop(blocker);
        assert_eq!(running_job.await.unwrap(), Ok(42));
        assert_eq!(pool.run(1, || 7).await, Ok(7));
    }

    #[tokio::test]
    async fn job_beyond_max_weight_is_refused() {
        let pool = new_pool(2, 10, 100);
        let (blocker, running_job) = start_blocked_job(&pool, 60).await;
        assert_eq!(pool.run(41, || ()).await, Err(CpuError::Overloaded));
        assert_eq!(pool.run(40, || 7).await, Ok(7));
        drop(blocker);
        assert_eq!(running_job.await.unwrap(), Ok(42));
        assert_eq!(pool.run(41, || 8).await, Ok(8));
    }

    #[tokio::test]
    async fn job_heavier_than_max_weight_runs_alone() {
        let pool = new_pool(2, 10, 100);
        let (blocker, heavy_job) = start_blocked_job(&pool, 1000).await;
        assert_eq!(pool.run(1, || ()).await, Err(CpuError::Overloaded));
        drop(blocker);
        assert_eq!(heavy_job.await.unwrap(), Ok(42));
        let (blocker, light_job) = start_blocked_job(&pool, 1).await;
        assert_eq!(pool.run(1000, || ()).await, Err(CpuError::Overloaded));
        drop(blocker);
        assert_eq!(light_job.await.unwrap(), Ok(42));
    }

    #[tokio::test]
    async fn panic_is_caught_and_releases_the_permit() {
        let pool = new_pool(1, 1, 10);
        for _ in 0..3 {
            assert_eq!(pool.run(10, || panic!("in a job")).await, Err::<(), _>(CpuError::Panicked));
        }
        assert_eq!(pool.run(10, || 7).await, Ok(7));
    }

    #[tokio::test]
    async fn job_is_skipped_if_its_future_is_dropped_before_it_starts() {
        let pool = new_pool(1, 2, 100);
        let (blocker, running_job) = start_blocked_job(&pool, 1).await;
        let (ran, has_run) = mpsc::channel::<()>();
        {
            let mut dropped = std::pin::pin!(pool.run(1, move || ran.send(()).unwrap()));
            let waiting = tokio::time::timeout(std::time::Duration::ZERO, &mut dropped).await;
            assert!(waiting.is_err(), "the only thread is busy");
        }
        assert_eq!(
            pool.run(1, || ()).await,
            Err(CpuError::Overloaded),
            "the skipped job still holds its permit"
        );
        drop(blocker);
        assert_eq!(running_job.await.unwrap(), Ok(42));
        // A job that does not run drops its sender without sending a message.
        let outcome = tokio::task::spawn_blocking(move || has_run.recv()).await.unwrap();
        assert!(outcome.is_err());
    }

    #[tokio::test]
    async fn pending_and_ongoing_jobs_are_counted() {
        let pool = new_pool(1, 5, 100);
        let (blocker, running_job) = start_blocked_job(&pool, 3).await;
        let permit = pool.limiter.try_acquire(4).unwrap();
        {
            let usage = pool.limiter.lock_usage();
            assert_eq!((usage.pending, usage.ongoing, usage.weight), (1, 1, 7));
        }
        drop(permit);
        drop(blocker);
        running_job.await.unwrap().unwrap();
        let usage = pool.limiter.lock_usage();
        assert_eq!((usage.pending, usage.ongoing, usage.weight), (0, 0, 0));
    }
}
