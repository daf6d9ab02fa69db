//! The queue of crops and the threads that run the network on them.
//!
//! An engine runs the network on batches of crops. Each engine has its own operating system thread, and one
//! bounded queue feeds all engines. A free engine receives one crop, adds crops that are already waiting, up
//! to the maximum size of a batch, and runs the network. A lone request therefore never waits for a batch to
//! fill. An engine drops a crop whose caller has gone. If the network fails or panics on a batch, the callers
//! of the batch receive an error and the engine continues.
//!
//! The module `overlap` submits batches to an engine that has its own device, such as a GPU. The next batch
//! is submitted before the current batch has finished. Such an engine is lost when a batch fails or times
//! out, because the state of the device's driver is then unknown. The service ends and must be started again.

mod batch;
mod infer;
mod native;
mod overlap;
mod queue;
#[cfg(test)]
mod tests;
mod threads;
mod watchdog;

pub(crate) use batch::catch_failure;
pub use infer::{Infer, InferError, PendingLogits};
pub use native::{EnginePlan, NativeEngine};

pub(crate) use queue::{EngineError, InferenceQueue};
pub(crate) use threads::{EngineStarter, RunningEngines, inference_queue};
