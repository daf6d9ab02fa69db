//! Runs chains of neural network layers as single burn operators.
//!
//! A chain is a sequence of layers, such as convolutions and pooling, that runs as one operator. Start
//! reading at [`Plan`], which lists the steps of a chain (its layers and blocks of layers), and at [`Chain`],
//! the burn module that executes a plan. The crate `model-import` generates code that creates and calls
//! chains.
//!
//! The private module `ops` implements the operator for each backend:
//!
//! - By default, the backend's own operators run one after another (module `plain`).
//! - On burn-flex, burn's CPU backend, the kernels of the crate `cnn-kernels` run (module `cpu`), unless the
//!   chain was loaded with [`Execution::Plain`].
//!
//! The CPU kernels use the rayon pool in which the forward pass is called. A pool of N threads computes N
//! images at a time, each on one thread. If fewer than N images remain, they are computed one after another,
//! and all threads share the rows of each image.

mod chain;
#[cfg(feature = "flex")]
mod cpu;
mod execution;
#[cfg(any(feature = "flex", feature = "ndarray", feature = "cube"))]
mod ops;
#[cfg(any(feature = "flex", feature = "ndarray", feature = "cube"))]
mod plain;
#[cfg_attr(
    not(feature = "flex"),
    expect(dead_code, reason = "only the CPU kernels need the shapes of the steps")
)]
mod plan;
mod state;

pub use chain::Chain;
pub use cnn_kernels::{Isa, IsaError};
pub use execution::{Execution, load_with};
pub use plan::{Conv, Plan, Step};
