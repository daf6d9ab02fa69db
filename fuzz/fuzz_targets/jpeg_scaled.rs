//! A fuzz target that reads a header with `jpeg-scaled` and decodes the file at every scale.
//!
//! The test module `corpus` of `jpeg-scaled` replays the corpus on stable Rust.
#![no_main]

use std::cell::RefCell;

use jpeg_scaled::{Decoder, JpegHeader, Scale};
use libfuzzer_sys::fuzz_target;

/// Maximum number of pixels of an image. The target ignores larger images, because the callers of the crate
/// also refuse images above a limit.
const MAX_PIXELS: u64 = 1 << 20;

/// Maximum number of scans of an image. preprocess has the same limit by default.
const MAX_SCANS: usize = 32;

thread_local! {
    // All inputs share a decoder, to check that one input does not affect the decoding of the next input.
    static DECODER: RefCell<Decoder> = RefCell::default();
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(JpegHeader { width, height, colour_space, .. }) = JpegHeader::read(bytes) else { return };
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return;
    }
    DECODER.with_borrow_mut(|decoder| {
        decoder.set_max_scans(MAX_SCANS);
        for scale in Scale::ALL {
            let Ok(image) = decoder.decode(bytes, scale) else { continue };
            assert_eq!((image.width, image.height), (scale.apply(width), scale.apply(height)));
            assert_eq!(
                image.pixels.len(),
                colour_space.channel_count() * image.width as usize * image.height as usize
            );
        }
    });
});
