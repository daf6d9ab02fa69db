//! Fused operators for burn: what `model-import` makes of the convolutional part of a network.
//!
//! Start reading at [`Plan`], the steps of a chain, and [`Chain`], the burn module that generated code
//! holds. `ops` is the seam to burn: a backend extension whose default body is `plain` burn
//! operators, so that every backend gives the same numbers, and whose body for burn-flex runs the CPU
//! kernels of the crate `cnn-kernels` (`prepared`) unless it was loaded to run [`Execution::Plain`].
//!
//! Threads are those of the rayon pool that the forward pass is called in: with as many images as
//! threads each thread takes whole images, and what is left over, a lone image for one, is split into
//! rows.

mod chain;
mod execution;
#[cfg(any(feature = "flex", feature = "ndarray", feature = "cube"))]
mod ops;
#[cfg(any(feature = "flex", feature = "ndarray", feature = "cube"))]
mod plain;
mod plan;
#[cfg(feature = "flex")]
mod prepared;

pub use chain::Chain;
pub use cnn_kernels::{Isa, IsaError};
pub use execution::{Execution, load_with};
pub use plan::{Conv, Plan, Step};
