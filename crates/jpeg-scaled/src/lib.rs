//! Decodes baseline JPEG at full size, or directly at 1/2, 1/4 or 1/8 of the width and height, in safe Rust.
//!
//! Decoding to a smaller size is for callers that make a small picture from a large photo. They would discard
//! most pixels of a full decode.
//!
//! - [`JpegHeader`] reads the size and the colour space of a picture, without decoding or allocating.
//! - [`Scale`] chooses the size of the decoded picture.
//! - [`Decoder`] decodes files and keeps its memory from one picture to the next.
//!
//! Start reading at [`Decoder::decode`], then the modules `scan`, which iterates over the MCUs, `block`,
//! where most of the time is spent, and `idct`.
//!
//! # Memory
//! A file with one scan needs memory for the pixels and for the samples of one row of MCUs. If the components
//! are in several scans, the decoder holds all samples, at the scale of the picture, until the last scan.
//!
//! # Terms
//! A picture has one component (luminance) or three, such as luminance and two colour differences. A
//! component is subsampled if it has fewer samples than the picture has pixels. The sampling of a file, such
//! as 4:2:0, says how its components are subsampled. JPEG divides each component into blocks of 8×8 samples
//! and transforms each block to 64 coefficients: the DC coefficient, which represents the mean, and 63 AC
//! coefficients. A scan contains the blocks of one or more components. An MCU (minimum coded unit) of a scan
//! with several components consists of the blocks that cover the same area of the picture. An MCU of a scan
//! with one component is a single block.
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
//! | SOF0 and SOF1 with 8 bits and Huffman coding | progressive, arithmetic, lossless, 12 bits |
//! | grey, YCbCr, RGB | CMYK and YCCK |
//! | 4:4:4, 4:2:2, 4:4:0, 4:2:0, 4:1:1 and other samplings whose ratios are whole numbers | other samplings |
//! | one scan or several, with or without restart markers | a height that follows the scan |
//! | a missing end marker, if no data is missing | missing Huffman tables, bytes that belong to no segment |
//!
//! The decoder never returns an incomplete picture: it returns [`Error::Truncated`] if the data ends too
//! early or if a component has no scan.

#![forbid(unsafe_code)]

mod bit_reader;
mod block;
mod colour;
mod decoder;
mod error;
mod header;
mod huffman;
mod idct;
mod plane;
mod scale;
mod scan;
mod segments;
mod zigzag;

pub use decoder::{Decoder, Picture};
pub use error::Error;
pub use header::{ColourSpace, JpegHeader};
pub use scale::Scale;
