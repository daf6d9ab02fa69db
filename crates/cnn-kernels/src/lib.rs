//! CPU kernels for convolutional networks, as pure functions over slices.
//!
//! Start reading at [`PackedConv1x1`], then `gemm`, where most of the time is spent, and `vector`, over
//! which every kernel is written once for all instruction sets.
//!
//! - [`Isa`]: which instructions to use, found out at run time
//! - [`PackedConv1x1`], [`FirstConv`], [`Depthwise`], [`global_average_pool`]: the operators; weights
//!   are packed once, for one [`Isa`]
//! - [`InvertedResidual`]: three operators in tiles that stay in the cache
//! - [`ceiling`]: how fast the machine could be
//!
//! Images are `f32` slices of height × width × channels, channels next to each other and without
//! padding, in any number. No kernel allocates or starts a thread: rows are given as ranges, so that a
//! caller may split them, and how they are split changes no bit of the result. Sizes that do not go
//! together are a [`ShapeError`] before anything is written.
//!
//! All of the project's `unsafe` is here.

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
