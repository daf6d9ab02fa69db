//! Decodes baseline and progressive JPEG at full size, or directly at 1/2, 1/4 or 1/8 of the width and height,
//! in safe Rust.
//!
//! Decoding to a smaller size is for callers that make a small picture from a large photo. They would discard
//! most pixels of a full decode.
//!
//! - [`JpegHeader`] reads the size and the colour space of a picture, without decoding or allocating.
//! - [`Scale`] chooses the size of the decoded picture.
//! - [`Decoder`] decodes files and keeps its memory from one picture to the next.
//! - [`Segments`] iterates over the segments of a file, such as those with EXIF or an ICC profile.
//!
//! Start reading at [`Decoder::decode`], then the modules `scan`, which iterates over the MCUs, `block`,
//! where most of the time is spent, and `idct`.
//!
//! # Memory
//! The decoder needs memory for the pixels and for the samples of one row of MCUs. A progressive file also needs
//! the coefficients of one row of MCUs: each scan has a decoder of its own, and for each row of MCUs, all of them
//! decode their part of this row. Each scan also needs memory for its Huffman tables.
//!
//! # Terms
//! A picture has one component (luminance), three, such as luminance and two colour differences, or four. A
//! component is subsampled if it has fewer samples than the picture has pixels. The sampling of a file, such
//! as 4:2:0, says how its components are subsampled. JPEG divides each component into blocks of 8×8 samples
//! and transforms each block to 64 coefficients: the DC coefficient, which represents the mean, and 63 AC
//! coefficients. A scan contains the blocks of one or more components. An MCU (minimum coded unit) of a scan
//! with several components consists of the blocks that cover the same area of the picture. An MCU of a scan
//! with one component is a single block.
//!
//! A sequential file has all coefficients of a component in one scan. A scan of a progressive file has only a
//! range of the coefficients, and may leave their lowest bits to later scans, which refine them.
//!
//! The entropy-coded data stores a coefficient as a Huffman code word and a value of up to 15 bits after it.
//! The symbol of the code word contains the length of the value. For an AC coefficient, the symbol also
//! contains the number of zero coefficients before it.
//!
//! # Exactness
//! The pixels are bit for bit the same as libjpeg-turbo's pixels at the same scale, however the components
//! are subsampled. The crate therefore computes the same inverse DCT ("islow"). At a smaller scale, it
//! decodes the blocks of subsampled components to more samples than other blocks, as libjpeg-turbo does. It
//! upsamples with a triangle filter ("fancy upsampling") or by repeating samples, in the same cases as
//! libjpeg-turbo.
//!
//! # Supported files
//!
//! | supported | [`Error::Unsupported`] |
//! |---|---|
//! | SOF0, SOF1 and SOF2 (progressive) with 8 bits and Huffman coding | arithmetic, lossless, 12 bits |
//! | grey, YCbCr, RGB, CMYK, YCCK | other numbers of components than 1, 3 and 4 |
//! | 4:4:4, 4:2:2, 4:4:0, 4:2:0, 4:1:1 and other samplings whose ratios are whole numbers | other samplings |
//! | one scan or several, with or without restart markers | a height that follows the scan |
//! | bytes that belong to no segment, missing Huffman tables | |
//!
//! # Incomplete files
//! The decoder never returns a picture with missing MCUs: it returns [`Error::Truncated`] if the data of a scan
//! ends too early or if a component has no scan. The end marker may be missing, and other data may be in its place,
//! if the scans contain every bit of every component. A progressive file without its last scans is decoded if the
//! end marker follows the last scan, because every viewer shows it.
//!
//! Every scan is decoded at every scale, so that a file is accepted or refused at all scales alike. At 1/8, the
//! AC coefficients are decoded but not stored.
//!
//! # Damaged files
//! The decoder does not resynchronise at restart markers. It returns [`Error::Corrupt`] for these signs of damage:
//! - an invalid code word
//! - a block with more coefficients than its range
//! - a run of blocks that is longer than its scan or restart interval
//! - a restart marker in the wrong place
//! - more than 8 bytes of data that are left over after the last MCU of a scan or restart interval, unless they
//!   are zero or follow the last scan in place of the end marker
//! - a DC coefficient that is far out of range, because the errors of differences add up
//! - a block of a sequential file whose AC coefficients are all equal, to which zero bytes can decode
//! - scans that repeat bits of coefficients, or omit some
//!
//! The README states how much damage these checks detect.

#![forbid(unsafe_code)]

mod bit_reader;
mod block;
mod coefficients;
mod colour;
mod decoder;
mod error;
mod header;
mod huffman;
mod idct;
mod picture_writer;
mod plane;
mod scale;
mod scan;
mod segments;
mod zigzag;

pub use decoder::{Decoder, Picture};
pub use error::Error;
pub use header::{ColourSpace, JpegHeader};
pub use huffman::MAX_TABLE_BYTES_PER_SCAN;
pub use scale::Scale;
pub use segments::{Segment, Segments};
