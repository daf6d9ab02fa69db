//! The accepted image formats.

use std::fmt;

/// An accepted image format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JPEG, baseline or progressive, in RGB, grey or CMYK.
    Jpeg,
    /// PNG. The default image of an animation is used.
    Png,
    /// WebP, lossy or lossless. The first frame of an animation is used.
    WebP,
    /// GIF. The first frame of an animation is used.
    Gif,
    /// Windows bitmap.
    Bmp,
    /// TIFF. The first page is used.
    Tiff,
    /// HEIC. The primary picture is used, or the first one of a sequence.
    #[cfg(feature = "heic")]
    Heic,
    /// AVIF. The primary picture is used, or the first one of a sequence.
    #[cfg(feature = "avif")]
    Avif,
}

impl Format {
    /// Every accepted format.
    pub const ALL: &[Self] = &[
        Self::Jpeg,
        Self::Png,
        Self::WebP,
        Self::Gif,
        Self::Bmp,
        Self::Tiff,
        #[cfg(feature = "heic")]
        Self::Heic,
        #[cfg(feature = "avif")]
        Self::Avif,
    ];

    /// Returns the usual name of the format, as in `JPEG`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
            #[cfg(feature = "heic")]
            Self::Heic => "HEIC",
            #[cfg(feature = "avif")]
            Self::Avif => "AVIF",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
