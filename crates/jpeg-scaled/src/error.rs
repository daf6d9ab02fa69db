//! Defines the error type of the crate.

/// Error returned when a picture cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file uses a feature of JPEG that this crate does not decode, or deviates from the standard in a
    /// way that some decoders tolerate. A different decoder may be able to decode the file.
    #[error("unsupported: {0}")]
    Unsupported(&'static str),
    /// The bytes violate the JPEG standard.
    #[error("corrupt: {0}")]
    Corrupt(&'static str),
    /// The file or its entropy-coded data ends too early.
    #[error("the file ends too early")]
    Truncated,
}
