//! The compiled-in model: its constants, its network, the normalisation of its input, and its labels.

mod constants;
pub(crate) mod labels;
mod network;
mod normalise;

pub use constants::{CLASSES, GEOMETRY, INPUT_SHAPE, spec};
pub use network::{Network, NetworkError};
pub use normalise::Normalisation;
