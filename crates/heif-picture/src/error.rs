//! The error of this crate.

/// The reason why a file cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is damaged or truncated, or contradicts itself.
    #[error("{0}")]
    Corrupt(&'static str),
    /// The file uses a feature of the format that this crate does not support.
    #[error("{0}")]
    Unsupported(String),
    /// The picture is coded with a codec that this build does not decode. Contains the type of the item or of the
    /// sample entry, such as `av01`.
    #[error("the picture is coded as `{}`", .0.escape_ascii())]
    OtherCodec([u8; 4]),
    /// The HEVC decoder refused a part of the picture.
    #[error("HEVC: {0}")]
    Hevc(#[source] heifer_hevc_dec::Error),
    /// The picture is a grid of pictures that are coded with AV1.
    #[cfg(feature = "avif")]
    #[error("a grid in AVIF")]
    Av1Grid,
    /// The AV1 decoder refused a part of the picture.
    #[cfg(feature = "avif")]
    #[error("AV1: {}", describe_av1_error(.0))]
    Av1(#[source] re_rav1d::dav1d::Error),
}

impl Error {
    /// Returns true if the file can be intact, but uses a feature that this crate does not support.
    pub fn is_unsupported(&self) -> bool {
        match self {
            Self::Unsupported(_) | Self::OtherCodec(_) => true,
            Self::Hevc(error) => matches!(error, heifer_hevc_dec::Error::Unimplemented(_)),
            #[cfg(feature = "avif")]
            Self::Av1Grid => true,
            #[cfg(feature = "avif")]
            Self::Av1(error) => matches!(error, re_rav1d::dav1d::Error::UnsupportedBitstream),
            Self::Corrupt(_) => false,
        }
    }

    pub(crate) fn unsupported(reason: impl Into<String>) -> Self {
        Self::Unsupported(reason.into())
    }
}

/// Returns the meaning of an error. The text of the error itself names constants of the C library.
#[cfg(feature = "avif")]
fn describe_av1_error(error: &re_rav1d::dav1d::Error) -> &'static str {
    use re_rav1d::dav1d::Error;
    match error {
        Error::Again => "the coded data ends too early",
        Error::InvalidArgument => "the coded data is damaged",
        Error::NotEnoughMemory => "the decoder got no memory",
        Error::UnsupportedBitstream => "the coded data uses a feature that the decoder does not support",
        // `ERANGE` and other constants of C, whose type is private.
        _ => "a frame is damaged, or larger than its sequence header states",
    }
}

impl From<heifer_hevc_dec::Error> for Error {
    fn from(error: heifer_hevc_dec::Error) -> Self {
        Self::Hevc(error)
    }
}

#[cfg(feature = "avif")]
impl From<re_rav1d::dav1d::Error> for Error {
    fn from(error: re_rav1d::dav1d::Error) -> Self {
        Self::Av1(error)
    }
}
