//! CPU kernels for convolutional networks, as pure functions over slices.
//!
//! - [`Isa`] is an instruction set that this CPU supports.
//! - [`PackedConv1x1`], [`FirstConv`], [`Depthwise`] and [`global_average_pool`] are the operators. Creating
//!   an operator packs its weights, which means copying them to the order in which the kernels for one
//!   [`Isa`] read them.
//! - [`InvertedResidual`] combines two 1×1 convolutions and a depthwise convolution. It computes them in
//!   tiles that stay in the cache.
//! - [`ceiling`] runs multiply-adds at the maximum speed of the CPU, for comparison in benchmarks.
//!
//! Start reading at [`PackedConv1x1`]. Then read the private modules `gemm`, which takes most of the
//! computing time, and `vector`, whose trait `Vector` makes the kernels generic over the instruction set.
//!
//! # Conventions
//! - An image is an `f32` slice of shape `[height][width][channels]` without padding. Any number of channels
//!   is possible.
//! - Running an operator neither allocates memory nor starts threads. Callers may split an image into ranges
//!   of rows or pixels and compute these in parallel. The results are bit-identical to those of a single
//!   call.
//! - If sizes do not match, an operator returns a [`ShapeError`] and writes nothing.
//! - "Kernel" has two meanings: the weights that a convolution moves over an image, and a computation that
//!   runs with vector instructions (the private trait `SimdKernel`).
//!
//! Except for tests, all `unsafe` code of the project is in this crate.

mod aligned;
pub mod ceiling;
mod conv1x1;
mod depthwise;
mod first_conv;
mod gemm;
mod inverted_residual;
mod isa;
mod pool;
mod shape;
mod vector;

pub use aligned::AlignedBuffer;
pub use conv1x1::PackedConv1x1;
pub use depthwise::Depthwise;
pub use first_conv::FirstConv;
pub use inverted_residual::InvertedResidual;
pub use isa::{Isa, IsaError};
pub use pool::global_average_pool;
pub use shape::{Clamp, Pads, ShapeError, Size, Window};
