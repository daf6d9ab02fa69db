//! Baseline JPEG in full, or straight to 1/2, 1/4 or 1/8 of the size, in safe Rust: for whoever makes a small
//! picture of a large photo and would throw most pixels of a full decode away.
//!
//! Start reading at [`Workspace::decode`], then `scan`, which goes from MCU to MCU, `block`, where most
//! of the time is spent, and `idct`.
//!
//! - [`Header`]: what a file says of itself, read before anything is decoded or allocated
//! - [`Scale`]: by how much it is made smaller, and which scale is large enough
//! - [`Workspace`]: decodes, with the memory of the picture before
//!
//! The pixels are those of libjpeg-turbo at the same scale, to the bit, for all samplings that are
//! decoded: blocks by its "islow" method, colour differences in larger blocks rather than upsampled
//! where it does so, otherwise by its triangle filter ("fancy upsampling"), or repeated where it repeats
//! them.
//!
//! | decoded | [`Error::Unsupported`] |
//! |---|---|
//! | SOF0 and SOF1 of 8 bits, Huffman | progressive, arithmetic, lossless, 12 bits |
//! | grey, YCbCr, RGB | CMYK and YCCK |
//! | 4:4:4, 4:2:2, 4:4:0, 4:2:0, 4:1:1 and what else comes out in whole samples | other samplings |
//! | one scan, with restart markers or without | several scans, a height that comes later |
//! | a missing end marker, if nothing else is | tables left out, rubbish between segments or after the pixels |
//!
//! A picture is never given with a part missing: pixels that end early are [`Error::Truncated`].

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
