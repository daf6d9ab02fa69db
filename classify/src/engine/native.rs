//! The compiled-in network as an engine.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use fused::Isa;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{Infer, InferError};
use crate::{backend::Backend, network::Network, pixels::Crop};

/// The compiled-in network with threads of its own, so that engines do not fight over them.
///
/// An engine that runs alone has the threads of all, for the rows of its image. Beside others it keeps to
/// its own: an image a thread is the most images per second, and none waits for the end of another, as
/// those of a batch do.
#[derive(Debug)]
pub struct NativeEngine {
    network: Network,
    /// What it runs on beside other engines.
    own: Arc<ThreadPool>,
    /// What it runs on alone.
    all: Arc<ThreadPool>,
    /// How many of the engines run.
    running: Arc<AtomicUsize>,
}

/// What engines run on, and what they share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// The arithmetic.
    pub backend: Backend,
    /// How many engines.
    pub engines: NonZeroUsize,
    /// Threads that the engines have together, and an engine alone.
    pub threads: NonZeroUsize,
    /// Widest instructions to use, for the backend that has a choice.
    pub isa: Option<Isa>,
}

impl EngineSettings {
    /// Threads of an engine beside the others.
    pub fn share(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.threads.get() / self.engines).unwrap_or(NonZeroUsize::MIN)
    }
}

impl NativeEngine {
    /// Loads the network once and gives as many engines as asked for; they share the weights.
    ///
    /// # Errors
    /// When threads cannot be started.
    ///
    /// # Panics
    /// When the weights do not fit the code; both were made by one build.
    pub fn load(settings: EngineSettings) -> Result<Vec<Self>, InferError> {
        let EngineSettings { backend, engines, threads, isa } = settings;
        let share = settings.share();
        let network = Network::load_for(backend, isa);
        let all = Arc::new(pool(threads, "engines".to_owned())?);
        let running = Arc::new(AtomicUsize::new(0));
        (0..engines.get())
            .map(|engine| {
                let own = if share == threads {
                    Arc::clone(&all)
                } else {
                    Arc::new(pool(share, format!("engine-{engine}"))?)
                };
                Ok(Self {
                    network: network.clone(),
                    own,
                    all: Arc::clone(&all),
                    running: Arc::clone(&running),
                })
            })
            .collect()
    }
}

impl Infer for NativeEngine {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        let turn = Turn::begin(&self.running);
        let pool = if turn.alone { &self.all } else { &self.own };
        // Within `install` rayon's work stays on this pool, burn's too.
        pool.install(|| self.network.logits(batch)).map_err(|error| InferError(error.into()))
    }
}

/// Counted among the engines that run, for as long as it lives.
struct Turn<'a> {
    running: &'a AtomicUsize,
    /// Whether no other engine ran when this one began.
    alone: bool,
}

impl<'a> Turn<'a> {
    fn begin(running: &'a AtomicUsize) -> Self {
        // The count guards no memory; a turn that is seen late only costs time.
        Self { running, alone: running.fetch_add(1, Ordering::Relaxed) == 0 }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }
}

fn pool(threads: NonZeroUsize, name: String) -> Result<ThreadPool, InferError> {
    ThreadPoolBuilder::new()
        .num_threads(threads.get())
        .thread_name(move |thread| format!("{name}-{thread}"))
        .build()
        .map_err(|error| InferError(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::GEOMETRY;

    #[test]
    fn beside_others_it_gives_what_it_gives_alone_and_leaves_their_threads_to_them() {
        let two = const { NonZeroUsize::new(2).unwrap() };
        for &backend in Backend::all() {
            let settings = EngineSettings { backend, engines: two, threads: two, isa: None };
            let mut engines = NativeEngine::load(settings).unwrap();
            let engine = &mut engines[0];
            assert_eq!([&engine.all, &engine.own].map(|pool| pool.current_num_threads()), [2, 1]);

            let side = GEOMETRY.crop;
            let gradient = (0..side * side * 3).map(|index| u8::try_from(index % 251).unwrap()).collect();
            let batch = [Crop::new(gradient, side).unwrap()];
            let alone = engine.infer(&batch).unwrap();

            let running = Arc::clone(&engine.running);
            let other = Turn::begin(&running);
            assert!(other.alone && !Turn::begin(&running).alone);
            assert_eq!(engine.infer(&batch).unwrap(), alone, "{backend}");
            drop(other);
            assert_eq!(running.load(Ordering::Relaxed), 0);
        }
    }
}
