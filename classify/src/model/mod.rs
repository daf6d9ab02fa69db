//! The compiled-in model, with its facts, its network, its input normalisation and its labels.

mod facts;
pub(crate) mod labels;
mod network;
mod normalise;

pub use facts::{CLASSES, CROP, GEOMETRY, spec};
pub use network::{Network, NetworkError};
