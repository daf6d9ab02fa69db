//! The one door from async code to rayon.

use std::{
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::panic;

/// Cores that this process may use.
pub fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// How much work may stand behind the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuLimits {
    /// Threads of the pool.
    pub threads: NonZeroUsize,
    /// Jobs that may wait or run at once.
    pub max_jobs: usize,
    /// Sum of the weights (pixels) of the jobs that may wait or run at once. A job heavier than this
    /// is let in when it is alone.
    pub max_weight: u64,
}

/// Why a job did not give a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CpuError {
    /// Too much work stands behind the door already; try again later.
    #[error("too much work is waiting")]
    Overloaded,
    /// The job panicked. The pool goes on.
    #[error("the job panicked")]
    Panicked,
}

/// A rayon pool of its own behind a bounded door.
#[derive(Debug)]
pub struct CpuPool {
    pool: rayon::ThreadPool,
    door: Arc<Door>,
}

impl CpuPool {
    /// A pool; `name` is the prefix of its threads' names and of its gauges
    /// (`<name>_cpu_pending`, `<name>_cpu_ongoing`).
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn new(name: &'static str, limits: CpuLimits) -> std::io::Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(limits.threads.get())
            .thread_name(move |index| format!("{name}-cpu-{index}"))
            // Without a handler rayon aborts the process. Jobs catch their own panics; what could
            // still panic is the drop of a result that nobody took.
            .panic_handler(|payload| tracing::error!(panic = panic::message(&*payload), "a CPU job panicked"))
            .build()
            .map_err(std::io::Error::other)?;
        Ok(Self { pool, door: Arc::new(Door::new(name, limits)) })
    }

    /// Takes a place behind the door for a job that costs `weight` pixels and is to run later
    /// ([`Self::run_in`]).
    ///
    /// # Errors
    /// [`CpuError::Overloaded`].
    pub fn enter(&self, weight: u64) -> Result<CpuPermit, CpuError> {
        self.door.enter(weight)
    }

    /// Whether [`Self::enter`] would refuse any job now, however light.
    pub fn is_full(&self) -> bool {
        let load = self.door.load();
        load.pending + load.ongoing >= self.door.limits.max_jobs
    }

    /// Runs `job` on the pool and gives back its result. `weight` is its cost in pixels. A job whose
    /// caller has gone (this future was dropped) before it started is skipped; a panic in the job is
    /// caught.
    ///
    /// # Errors
    /// [`CpuError`].
    pub async fn run<T, F>(&self, weight: u64, job: F) -> Result<T, CpuError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.run_in(self.enter(weight)?, job).await
    }

    /// [`Self::run`] in a place that was taken before.
    ///
    /// # Errors
    /// [`CpuError::Panicked`].
    pub async fn run_in<T, F>(&self, mut place: CpuPermit, job: F) -> Result<T, CpuError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let span = tracing::Span::current();
        self.pool.spawn(move || {
            if answer.is_closed() {
                return;
            }
            place.start();
            let outcome = span.in_scope(|| {
                catch_unwind(AssertUnwindSafe(job)).map_err(|payload| {
                    tracing::error!(panic = panic::message(&*payload), "a CPU job panicked");
                    CpuError::Panicked
                })
            });
            // Before the answer: whoever has it may count on the place being free again.
            drop(place);
            // The caller may have left while the job ran.
            let _ = answer.send(outcome);
        });
        result.await.unwrap_or(Err(CpuError::Panicked))
    }
}

/// Counts what stands behind the door.
#[derive(Debug)]
struct Door {
    limits: CpuLimits,
    load: Mutex<Load>,
    pending_gauge: Arc<str>,
    ongoing_gauge: Arc<str>,
}

#[derive(Debug, Default)]
struct Load {
    pending: usize,
    ongoing: usize,
    weight: u64,
}

impl Door {
    fn new(name: &str, limits: CpuLimits) -> Self {
        Self {
            limits,
            load: Mutex::default(),
            pending_gauge: format!("{name}_cpu_pending").into(),
            ongoing_gauge: format!("{name}_cpu_ongoing").into(),
        }
    }

    fn enter(self: &Arc<Self>, weight: u64) -> Result<CpuPermit, CpuError> {
        let mut load = self.load();
        let jobs = load.pending + load.ongoing;
        let light_enough = jobs == 0 || load.weight.saturating_add(weight) <= self.limits.max_weight;
        if jobs >= self.limits.max_jobs || !light_enough {
            return Err(CpuError::Overloaded);
        }
        load.pending += 1;
        load.weight += weight;
        self.report(&load);
        drop(load);
        Ok(CpuPermit { door: Arc::clone(self), weight, started: false })
    }

    /// The counts are right even if a thread panicked while it held the lock: every change is one
    /// addition or subtraction.
    fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, load: &Load) {
        let count = |n: usize| u32::try_from(n).map_or(f64::INFINITY, f64::from);
        metrics::gauge!(Arc::clone(&self.pending_gauge)).set(count(load.pending));
        metrics::gauge!(Arc::clone(&self.ongoing_gauge)).set(count(load.ongoing));
    }
}

/// One job's place behind the door, given back when dropped.
#[derive(Debug)]
pub struct CpuPermit {
    door: Arc<Door>,
    weight: u64,
    started: bool,
}

impl CpuPermit {
    fn start(&mut self) {
        let mut load = self.door.load();
        load.pending -= 1;
        load.ongoing += 1;
        self.started = true;
        self.door.report(&load);
    }
}

impl Drop for CpuPermit {
    fn drop(&mut self) {
        let mut load = self.door.load();
        if self.started {
            load.ongoing -= 1;
        } else {
            load.pending -= 1;
        }
        load.weight -= self.weight;
        self.door.report(&load);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn pool(threads: usize, max_jobs: usize, max_weight: u64) -> Arc<CpuPool> {
        let threads = NonZeroUsize::new(threads).unwrap();
        Arc::new(CpuPool::new("test", CpuLimits { threads, max_jobs, max_weight }).unwrap())
    }

    /// A job that has started and runs until the gate is opened (or dropped).
    async fn gated(
        pool: &Arc<CpuPool>,
        weight: u64,
    ) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<u32, CpuError>>) {
        let (open, gate) = mpsc::channel();
        let (started, has_started) = oneshot::channel();
        let pool = Arc::clone(pool);
        let job = tokio::spawn(async move {
            pool.run(weight, move || {
                started.send(()).unwrap();
                let _ = gate.recv();
                42
            })
            .await
        });
        has_started.await.unwrap();
        (open, job)
    }

    #[tokio::test]
    async fn gives_back_the_result_from_a_thread_of_its_own() {
        let thread = pool(2, 4, 10).run(1, || std::thread::current().name().map(str::to_owned)).await;
        assert!(thread.unwrap().unwrap().starts_with("test-cpu-"));
    }

    #[tokio::test]
    async fn is_bounded_in_jobs() {
        let pool = pool(1, 1, 100);
        assert!(!pool.is_full());
        let (open, first) = gated(&pool, 1).await;
        assert!(pool.is_full());
        assert_eq!(pool.run(1, || ()).await, Err(CpuError::Overloaded));
        drop(open);
        assert_eq!(first.await.unwrap(), Ok(42));
        assert_eq!(pool.run(1, || 7).await, Ok(7));
    }

    #[tokio::test]
    async fn is_bounded_in_weight() {
        let pool = pool(2, 10, 100);
        let (open, first) = gated(&pool, 60).await;
        assert_eq!(pool.run(41, || ()).await, Err(CpuError::Overloaded));
        assert_eq!(pool.run(40, || 7).await, Ok(7));
        drop(open);
        assert_eq!(first.await.unwrap(), Ok(42));
        assert_eq!(pool.run(41, || 8).await, Ok(8));
    }

    #[tokio::test]
    async fn a_job_heavier_than_the_bound_runs_alone() {
        let pool = pool(2, 10, 100);
        let (open, heavy) = gated(&pool, 1000).await;
        assert_eq!(pool.run(1, || ()).await, Err(CpuError::Overloaded));
        drop(open);
        assert_eq!(heavy.await.unwrap(), Ok(42));
        let (open, light) = gated(&pool, 1).await;
        assert_eq!(pool.run(1000, || ()).await, Err(CpuError::Overloaded));
        drop(open);
        assert_eq!(light.await.unwrap(), Ok(42));
    }

    #[tokio::test]
    async fn a_panic_is_caught_and_gives_its_place_back() {
        let pool = pool(1, 1, 10);
        for _ in 0..3 {
            assert_eq!(pool.run(10, || panic!("in a job")).await, Err::<(), _>(CpuError::Panicked));
        }
        assert_eq!(pool.run(10, || 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_job_whose_caller_left_is_skipped() {
        let pool = pool(1, 2, 100);
        let (open, first) = gated(&pool, 1).await;
        let (ran, has_run) = mpsc::channel::<()>();
        {
            let mut left = std::pin::pin!(pool.run(1, move || ran.send(()).unwrap()));
            let waiting = tokio::time::timeout(std::time::Duration::ZERO, &mut left).await;
            assert!(waiting.is_err(), "the only thread is taken");
        }
        assert_eq!(pool.run(1, || ()).await, Err(CpuError::Overloaded), "it still has its place");
        drop(open);
        assert_eq!(first.await.unwrap(), Ok(42));
        // The sender is dropped with the skipped job; had the job run, a message would be here.
        let outcome = tokio::task::spawn_blocking(move || has_run.recv()).await.unwrap();
        assert!(outcome.is_err());
    }

    #[tokio::test]
    async fn counts_pending_and_ongoing() {
        let pool = pool(1, 5, 100);
        let (open, first) = gated(&pool, 3).await;
        let place = pool.door.enter(4).unwrap();
        {
            let load = pool.door.load();
            assert_eq!((load.pending, load.ongoing, load.weight), (1, 1, 7));
        }
        drop(place);
        drop(open);
        first.await.unwrap().unwrap();
        let load = pool.door.load();
        assert_eq!((load.pending, load.ongoing, load.weight), (0, 0, 0));
    }
}
