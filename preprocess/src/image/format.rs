//! The accepted image formats.

use std::fmt;

/// An accepted image format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JPEG: baseline and progressive; RGB, grey and CMYK.
    Jpeg,
    /// PNG. Of an animation, the default image is used.
    Png,
    /// WebP: lossy and lossless. Of an animation, the first frame is used.
    WebP,
    /// GIF. The first frame is used.
    Gif,
    /// Windows bitmap.
    Bmp,
    /// TIFF. The first page is used.
    Tiff,
}

impl Format {
    /// Every accepted format.
    pub const ALL: [Self; 6] = [Self::Jpeg, Self::Png, Self::WebP, Self::Gif, Self::Bmp, Self::Tiff];

    /// Returns the usual name of the format, as in `JPEG`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
