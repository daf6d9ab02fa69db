//! The compiled-in network on the CPU, as an engine.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use fused::Isa;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::infer::{Infer, InferError};
use crate::{backend::Backend, model::Network, pixels::Crop};

/// The compiled-in network on the CPU.
///
/// An engine that runs alone uses the threads of all engines for its image. Engines that run side by side
/// use their own threads only: one image per thread gives the highest throughput, and no image waits for
/// the end of another.
#[derive(Debug)]
pub struct NativeEngine {
    network: Network,
    /// Threads of this engine, used while other engines run.
    own: Arc<ThreadPool>,
    /// Threads of all engines, used while no other engine runs.
    shared: Arc<ThreadPool>,
    /// Number of engines that are running a batch.
    running: Arc<AtomicUsize>,
}

/// Number of engines, their threads and their backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnginePlan {
    /// Backend of every engine.
    pub backend: Backend,
    /// Number of engines.
    pub engine_count: NonZeroUsize,
    /// Number of threads that the engines share.
    pub threads: NonZeroUsize,
    /// Widest instruction set to use. Only for a backend with CPU kernels.
    pub isa: Option<Isa>,
}

impl EnginePlan {
    /// Returns the number of threads of an engine that runs beside others.
    fn threads_per_engine(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.threads.get() / self.engine_count).unwrap_or(NonZeroUsize::MIN)
    }
}

impl NativeEngine {
    /// Loads the network once and creates the engines of `plan`, which share its weights.
    ///
    /// # Errors
    /// When threads cannot be started.
    ///
    /// # Panics
    /// When the weights do not fit the code. Both come from the same build.
    pub fn load_all(plan: EnginePlan) -> Result<Vec<Self>, InferError> {
        let EnginePlan { backend, engine_count, threads, isa } = plan;
        let threads_per_engine = plan.threads_per_engine();
        let network = Network::load_with_isa(backend, isa);
        let shared = Arc::new(thread_pool(threads, "engines".to_owned())?);
        let running = Arc::new(AtomicUsize::new(0));
        (0..engine_count.get())
            .map(|engine| {
                let own = if threads_per_engine == threads {
                    Arc::clone(&shared)
                } else {
                    Arc::new(thread_pool(threads_per_engine, format!("engine-{engine}"))?)
                };
                Ok(Self {
                    network: network.clone(),
                    own,
                    shared: Arc::clone(&shared),
                    running: Arc::clone(&running),
                })
            })
            .collect()
    }
}

impl Infer for NativeEngine {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        let guard = RunningGuard::new(&self.running);
        let pool = if guard.is_alone { &self.shared } else { &self.own };
        // Rayon's tasks started within `install` stay on this pool, including those of burn.
        pool.install(|| self.network.logits(batch)).map_err(|error| InferError(error.into()))
    }
}

/// Counts an engine as running for as long as the guard lives.
struct RunningGuard<'a> {
    running: &'a AtomicUsize,
    /// True if no other engine ran when this one began.
    is_alone: bool,
}

impl<'a> RunningGuard<'a> {
    fn new(running: &'a AtomicUsize) -> Self {
        // Relaxed suffices: the count guards no memory, and a late count only costs time.
        Self { running, is_alone: running.fetch_add(1, Ordering::Relaxed) == 0 }
    }
}

impl Drop for RunningGuard<'_> {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }
}

fn thread_pool(threads: NonZeroUsize, name: String) -> Result<ThreadPool, InferError> {
    ThreadPoolBuilder::new()
        .num_threads(threads.get())
        .thread_name(move |thread| format!("{name}-{thread}"))
        .build()
        .map_err(|error| InferError(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::GEOMETRY;

    #[test]
    fn engine_beside_others_uses_its_own_threads_and_gives_the_same_logits() {
        let two = const { NonZeroUsize::new(2).unwrap() };
        for &backend in Backend::all() {
            let plan = EnginePlan { backend, engine_count: two, threads: two, isa: None };
            let mut engines = NativeEngine::load_all(plan).unwrap();
            let engine = &mut engines[0];
            assert_eq!([&engine.shared, &engine.own].map(|pool| pool.current_num_threads()), [2, 1]);

            let side = GEOMETRY.crop;
            let gradient = (0..side * side * 3).map(|index| u8::try_from(index % 251).unwrap()).collect();
            let batch = [Crop::new(gradient, side).unwrap()];
            let alone = engine.infer(&batch).unwrap();

            let running = Arc::clone(&engine.running);
            let other = RunningGuard::new(&running);
            assert!(other.is_alone && !RunningGuard::new(&running).is_alone);
            assert_eq!(engine.infer(&batch).unwrap(), alone, "{backend}");
            drop(other);
            assert_eq!(running.load(Ordering::Relaxed), 0);
        }
    }
}
