//! The queue of crops and the threads that run the network on them.
//!
//! One bounded queue feeds any number of engines, each on an operating system thread of its own. A free
//! engine receives one crop, adds the crops that are already waiting up to the largest batch, and runs: a
//! lone request never waits for a batch to fill. Crops whose caller has gone are dropped before the network
//! runs. A batch that panics or fails is an error for its callers; the engine continues.
//!
//! An engine on a GPU is fed by `overlap`, which submits the next batch before the current one has finished.
//! Such an engine is lost when a batch fails or times out. The state of its driver is then unknown, so the
//! service ends and must be started again.

mod batch;
mod infer;
mod native;
mod overlap;
mod queue;
#[cfg(test)]
mod tests;
mod watchdog;
mod worker;

pub use infer::{Infer, InferError, PendingLogits};
pub use native::{EnginePlan, NativeEngine};

pub(crate) use queue::{EngineError, InferenceQueue};
pub(crate) use worker::{RunningEngines, WorkerBuilder, inference_queue};
