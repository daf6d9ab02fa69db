//! CPU kernels for convolutional networks, as pure functions over slices.
//!
//! - [`Isa`] is an instruction set, which is detected at run time.
//! - [`PackedConv1x1`], [`FirstConv`], [`Depthwise`] and [`global_average_pool`] are the operators. The
//!   weights of an operator are packed once, for one [`Isa`].
//! - [`InvertedResidual`] combines three operators, and computes them in tiles that stay in the cache.
//! - [`ceiling`] runs multiply-adds at the maximum speed of the machine, for benchmarks.
//!
//! Start reading at [`PackedConv1x1`], then the modules `gemm`, where most of the time is spent, and
//! `vector`, whose trait makes every kernel generic over the instruction set.
//!
//! # Conventions
//! - An image is an `f32` slice of shape `[height][width][channels]` without padding. Any number of channels
//!   is possible.
//! - Kernels neither allocate nor start threads. Callers may split an image into ranges of rows or pixels and
//!   compute them in parallel, which does not change a bit of the result.
//! - If sizes do not match, a kernel returns a [`ShapeError`] and writes nothing.
//!
//! All `unsafe` code of the project is in this crate.

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
