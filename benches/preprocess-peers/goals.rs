//! What this project is to reach, for each build.

use crate::{
    BUILD,
    pictures::{JPEG_LARGE, JPEG_MIDDLE, JPEG_SMALL, PNG_MIDDLE, PNG_OF_LIBPNG},
    tools::Tool,
};

/// Quality of the large JPEG at least, in dB.
pub(crate) const PSNR: f64 = 50.0;
/// Memory that the large JPEG takes at most, in MB.
pub(crate) const MEMORY: f64 = 10.0;
/// Images per second on two threads at least, as a multiple of those on one.
pub(crate) const TWO_THREADS: f64 = 1.9;

/// How many times as fast as a peer.
pub(crate) struct Speed {
    pub(crate) peer: Tool,
    pub(crate) picture: &'static str,
    pub(crate) at_least: f64,
}

const fn speed(peer: Tool, picture: &'static str, at_least: f64) -> Speed {
    Speed { peer, picture, at_least }
}

const TURBO: &[Speed] = &[
    speed(Tool::Sharp, JPEG_LARGE, 1.1),
    speed(Tool::Sharp, JPEG_MIDDLE, 1.5),
    speed(Tool::Sharp, JPEG_SMALL, 3.0),
    speed(Tool::Pillow, JPEG_LARGE, 6.0),
    speed(Tool::Pillow, JPEG_MIDDLE, 5.5),
    speed(Tool::Pillow, JPEG_SMALL, 4.0),
    speed(Tool::Sharp, PNG_MIDDLE, 1.8),
    speed(Tool::Sharp, PNG_OF_LIBPNG, 1.8),
];

const DEFAULT: &[Speed] = &[
    speed(Tool::Sharp, JPEG_LARGE, 1.0),
    speed(Tool::Sharp, JPEG_MIDDLE, 1.2),
    speed(Tool::Sharp, JPEG_SMALL, 2.0),
    speed(Tool::Sharp, PNG_MIDDLE, 1.8),
    speed(Tool::Sharp, PNG_OF_LIBPNG, 1.8),
];

/// Those of this build.
pub(crate) fn speeds() -> &'static [Speed] {
    if BUILD == "turbo" { TURBO } else { DEFAULT }
}
