//! The header and every scale of `jpeg-scaled`. The stable test `corpus` of that crate does the same with
//! the files of the corpus.
#![no_main]

use std::cell::RefCell;

use jpeg_scaled::{ColourSpace, Decoder, JpegHeader, Scale};
use libfuzzer_sys::fuzz_target;

/// Pixels of the largest picture that is decoded: what a caller would check, and enough to find things.
const MAX_PIXELS: u64 = 1 << 20;

thread_local! {
    // One for all inputs: what one leaves behind must not harm the next.
    static WORKSPACE: RefCell<Decoder> = RefCell::default();
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(JpegHeader { width, height, colour_space }) = JpegHeader::read(bytes) else { return };
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return;
    }
    WORKSPACE.with_borrow_mut(|workspace| {
        for scale in Scale::ALL {
            let Ok(picture) = workspace.decode(bytes, scale) else { continue };
            assert_eq!((picture.width, picture.height), (scale.apply(width), scale.apply(height)));
            let channels = if colour_space == ColourSpace::Grey { 1 } else { 3 };
            assert_eq!(picture.pixels.len(), channels * picture.width as usize * picture.height as usize);
        }
    });
});
