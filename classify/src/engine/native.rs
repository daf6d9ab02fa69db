//! An engine that runs the compiled-in network on the CPU.

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

/// An engine that runs the compiled-in network on the CPU.
///
/// While only one engine runs, the engine uses the threads of all engines. While several engines run, each
/// engine uses only its own threads, so that no image waits for the threads of another image. By default each
/// engine has one thread, because one image per thread gives the highest throughput.
#[derive(Debug)]
pub struct NativeEngine {
    network: Network,
    /// Threads of this engine, used while other engines run.
    own_pool: Arc<ThreadPool>,
    /// Threads of all engines, used while no other engine runs.
    shared_pool: Arc<ThreadPool>,
    /// Number of engines that are running a batch.
    running_count: Arc<AtomicUsize>,
}

/// Number of engines, their threads, their backend and their instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnginePlan {
    /// Backend of every engine.
    pub backend: Backend,
    /// Number of engines.
    pub engine_count: NonZeroUsize,
    /// Number of threads that the engines share.
    pub thread_count: NonZeroUsize,
    /// Widest instruction set that the CPU kernels may use.
    ///
    /// `None` selects the widest instruction set of this CPU. A backend without CPU kernels ignores this
    /// field.
    pub isa: Option<Isa>,
}

impl EnginePlan {
    /// Returns the number of threads that an engine uses while other engines run.
    fn threads_per_engine(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.thread_count.get() / self.engine_count).unwrap_or(NonZeroUsize::MIN)
    }
}

impl NativeEngine {
    /// Loads the network once and creates the engines of `plan`. The engines share the network's weights.
    ///
    /// # Errors
    /// Returns [`InferError`] when threads cannot be started.
    ///
    /// # Panics
    /// Panics if the weights do not fit the network's code. This cannot happen, because one build generates
    /// both.
    pub fn load_all(plan: EnginePlan) -> Result<Vec<Self>, InferError> {
        let EnginePlan { backend, engine_count, thread_count, isa } = plan;
        let threads_per_engine = plan.threads_per_engine();
        let network = Network::load_with_isa(backend, isa);
        let shared_pool = Arc::new(build_thread_pool(thread_count, "engines".to_owned())?);
        let running_count = Arc::new(AtomicUsize::new(0));
        (0..engine_count.get())
            .map(|number| {
                let own_pool = if threads_per_engine == thread_count {
                    Arc::clone(&shared_pool)
                } else {
                    Arc::new(build_thread_pool(threads_per_engine, format!("engine-{number}"))?)
                };
                Ok(Self {
                    network: network.clone(),
                    own_pool,
                    shared_pool: Arc::clone(&shared_pool),
                    running_count: Arc::clone(&running_count),
                })
            })
            .collect()
    }
}

impl Infer for NativeEngine {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        let guard = RunningGuard::new(&self.running_count);
        let pool = if guard.is_alone { &self.shared_pool } else { &self.own_pool };
        // burn runs the network as Rayon tasks. Tasks that are started within `install` run on this pool.
        pool.install(|| self.network.logits(batch)).map_err(|error| InferError(error.into()))
    }
}

/// Counts an engine as running until the guard is dropped.
struct RunningGuard<'a> {
    running_count: &'a AtomicUsize,
    /// True if no other engine was running when the guard was created.
    is_alone: bool,
}

impl<'a> RunningGuard<'a> {
    fn new(running_count: &'a AtomicUsize) -> Self {
        // `Relaxed` suffices, because the count guards no memory. An outdated count only costs time.
        Self { running_count, is_alone: running_count.fetch_add(1, Ordering::Relaxed) == 0 }
    }
}

impl Drop for RunningGuard<'_> {
    fn drop(&mut self) {
        self.running_count.fetch_sub(1, Ordering::Relaxed);
    }
}

fn build_thread_pool(thread_count: NonZeroUsize, name: String) -> Result<ThreadPool, InferError> {
    ThreadPoolBuilder::new()
        .num_threads(thread_count.get())
        .thread_name(move |number| format!("{name}-{number}"))
        .build()
        .map_err(|error| InferError(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::GEOMETRY;

    #[test]
    fn engine_gives_the_same_logits_alone_and_beside_another_engine() {
        let two = const { NonZeroUsize::new(2).unwrap() };
        for backend in Backend::cpu_backends() {
            let plan = EnginePlan { backend, engine_count: two, thread_count: two, isa: None };
            let mut engines = NativeEngine::load_all(plan).unwrap();
            let engine = &mut engines[0];
            assert_eq!(
                [&engine.shared_pool, &engine.own_pool].map(|pool| pool.current_num_threads()),
                [2, 1]
            );

            let gradient =
                (0..GEOMETRY.crop.byte_count()).map(|index| u8::try_from(index % 251).unwrap()).collect();
            let batch = [Crop::new(gradient, GEOMETRY.crop).unwrap()];
            let expected = engine.infer(&batch).unwrap();

            let running_count = Arc::clone(&engine.running_count);
            let other_engine = RunningGuard::new(&running_count);
            assert!(other_engine.is_alone && !RunningGuard::new(&running_count).is_alone);
            assert_eq!(engine.infer(&batch).unwrap(), expected, "{backend}");
            drop(other_engine);
            assert_eq!(running_count.load(Ordering::Relaxed), 0);
        }
    }
}
