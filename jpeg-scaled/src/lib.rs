//! Baseline JPEG straight to 1/2, 1/4 or 1/8 of the size.

#![forbid(unsafe_code)]

mod bits;
mod block;
mod colour;
mod error;
mod header;
mod huffman;
mod idct;
mod lookup;
mod plane;
mod scale;
mod scan;
mod segment;
mod workspace;
mod zigzag;

pub use error::Error;
pub use header::{Colour, Header};
pub use scale::Scale;
pub use workspace::{Picture, Workspace};
