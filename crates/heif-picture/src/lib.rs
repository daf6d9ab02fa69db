//! Finds, prices and decodes the primary picture of a HEIC or AVIF file.
//!
//! Such a file is a tree of boxes (ISO/IEC 14496-12) that describes image items (ISO/IEC 23008-12). The primary item
//! is a picture coded with HEVC or AV1, or a grid of HEVC pictures, its tiles. Another item can be the alpha channel of
//! the primary item. Thumbnails, depth maps, gain maps and all further pictures are ignored. In a file that contains
//! only a sequence, the first picture of its first track takes the place of the primary item.
//!
//! [`Plan::read`] finds the parts of the picture and states what decoding them costs. It decodes no pixels, and reads
//! the size of every part from the headers that the decoder will use, because the size in the boxes can be too small.
//! [`Plan::decode`] then decodes one part at a time into the caller's buffers. The HEVC decoder is heifer-hevc-dec.
//! With the feature `avif`, re_rav1d decodes AV1; without it, AVIF files are refused.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let file = std::fs::read("photo.heic")?;
//! let plan = heif_picture::Plan::read(&file)?;
//! assert!(plan.coded_pixels() < 50_000_000 && plan.decoder_bytes() < 100_000_000);
//! let mut colours = vec![0; plan.colour_bytes()];
//! let mut alpha = vec![0; plan.alpha_bytes()];
//! plan.decode(&mut colours, &mut alpha)?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod alpha;
#[cfg(feature = "avif")]
mod av1;
#[cfg(feature = "avif")]
mod bits;
mod boxes;
mod coding;
mod container;
mod error;
mod geometry;
mod grid;
mod hevc;
mod item_data;
mod parts;
mod plan;
mod samples;
mod sequence;
mod slices;
#[cfg(test)]
mod tests;

pub use self::{
    error::Error,
    geometry::{Orientation, Rectangle, Window},
    plan::{ColourSpace, Plan},
};

/// Returns true if the file begins with a list of brands that contains one of HEIF.
///
/// The brands do not tell the coding of the pictures. Therefore many AVIF files have such a brand, too.
pub fn is_heif(file: &[u8]) -> bool {
    boxes::has_brand(file, |brand| {
        matches!(
            brand,
            b"heic"
                | b"heix"
                | b"heim"
                | b"heis"
                | b"hevc"
                | b"hevx"
                | b"hevm"
                | b"hevs"
                | b"mif1"
                | b"mif2"
                | b"msf1"
        )
    })
}

/// Returns true if the file begins with a list of brands that contains one of AVIF.
pub fn is_avif(file: &[u8]) -> bool {
    boxes::has_brand(file, |brand| matches!(brand, b"avif" | b"avis" | b"avio" | b"MA1A" | b"MA1B"))
}
