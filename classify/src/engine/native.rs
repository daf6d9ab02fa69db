//! The compiled-in network as an engine.

use std::num::NonZeroUsize;

use fused::Isa;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{Infer, InferError};
use crate::{backend::Backend, network::Network, pixels::Crop};

/// The compiled-in network with a rayon pool of its own, so that engines do not fight over one.
#[derive(Debug)]
pub struct NativeEngine {
    network: Network,
    pool: ThreadPool,
}

/// What engines run on, and what they share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// The arithmetic.
    pub backend: Backend,
    /// How many engines.
    pub engines: NonZeroUsize,
    /// Threads of each engine.
    pub threads: NonZeroUsize,
    /// Widest instructions to use, for the backend that has a choice.
    pub isa: Option<Isa>,
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
        let network = Network::load_for(backend, isa);
        (0..engines.get())
            .map(|engine| {
                let pool = ThreadPoolBuilder::new()
                    .num_threads(threads.get())
                    .thread_name(move |thread| format!("engine-{engine}-{thread}"))
                    .build()
                    .map_err(|error| InferError(error.into()))?;
                Ok(Self { network: network.clone(), pool })
            })
            .collect()
    }
}

impl Infer for NativeEngine {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        // Within `install` rayon's work stays on this pool, burn's too.
        self.pool.install(|| self.network.logits(batch)).map_err(|error| InferError(error.into()))
    }
}
