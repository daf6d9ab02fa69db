//! The compiled-in model: its constants, its network, the normalisation of its input, and its labels.

mod constants;
mod head;
pub(crate) mod labels;
mod network;
mod normalise;

pub use constants::{CLASSES, GEOMETRY, HEAD, INPUT_SHAPE, compiled_model, spec};
pub use head::{Head, OutputKind};
pub use network::{Network, NetworkError};
pub use normalise::Normalisation;
