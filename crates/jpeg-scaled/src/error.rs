//! Why a picture cannot be decoded.

/// Why a picture cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a kind of JPEG that this crate decodes, or one that bends the rules. Another decoder may
    /// make a picture of it.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// The bytes break the rules of the format.
    #[error("corrupt: {0}")]
    Corrupt(&'static str),
    /// The file, or its pixels, end too early.
    #[error("it ends too early")]
    Truncated,
}
