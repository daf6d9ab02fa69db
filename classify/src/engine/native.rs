//! The compiled-in network as an engine.

use std::num::NonZeroUsize;

use platform::cpu::cores;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{Infer, InferError};
use crate::{backend::Backend, network::Network, pixels::Crop};

/// The compiled-in network with a rayon pool of its own, so that engines do not fight over one.
#[derive(Debug)]
pub struct NativeEngine {
    network: Network,
    pool: ThreadPool,
}

impl NativeEngine {
    /// Loads the network once and gives as many engines as asked for. They share the weights and
    /// split the machine's cores between them.
    ///
    /// # Errors
    /// When threads cannot be started.
    ///
    /// # Panics
    /// When the weights do not fit the code; both were made by one build.
    pub fn load(backend: Backend, engines: NonZeroUsize) -> Result<Vec<Self>, InferError> {
        let threads = (cores().get() / engines.get()).max(1);
        let network = Network::load(backend);
        (0..engines.get())
            .map(|engine| {
                let pool = ThreadPoolBuilder::new()
                    .num_threads(threads)
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
