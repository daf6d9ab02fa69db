//! Reads the content of a file, and detects damage.
//!
//! A content is damaged if it does not have the checksum that is stored with the file. It is also damaged if the
//! device cannot read it (`EIO`), as after the failure of a sector. Both remain until the object is written again.

use std::io::{self, Read};

use rustix::io::Errno;

use super::checksum::Checksum;
use crate::bucket::LooksIntact;

/// An object without a checksum is judged by its content only up to this length, because judging it needs the
/// whole content in memory.
const MAX_JUDGED_BYTES: u64 = 64 << 20;

/// Reads the first `length` bytes of `content`. Returns `None` if the content is damaged.
///
/// A content without a checksum is damaged only if the device cannot read it.
pub(super) fn read_intact(
    content: impl Read,
    length: usize,
    checksum: Option<Checksum>,
) -> io::Result<Option<Vec<u8>>> {
    let mut data = Vec::with_capacity(length);
    // `take` enforces the limit even if another program is appending to the file.
    match content.take(length as u64).read_to_end(&mut data) {
        Ok(_) => Ok(checksum.is_none_or(|checksum| checksum == Checksum::of(&data)).then_some(data)),
        Err(error) if is_unreadable(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns true if `content`, which has `length` bytes, is not damaged.
///
/// Without a checksum, `looks_intact` judges the content.
pub(super) fn is_intact(
    content: impl Read,
    length: u64,
    checksum: Option<Checksum>,
    looks_intact: LooksIntact,
) -> io::Result<bool> {
    let result = match checksum {
        Some(checksum) if checksum.length != length => return Ok(false),
        Some(checksum) => Checksum::of_content(content).map(|found| found == checksum),
        None if length > MAX_JUDGED_BYTES => return Ok(true),
        None => {
            let mut data = Vec::new();
            content.take(length).read_to_end(&mut data).map(|_| looks_intact(&data))
        }
    };
    match result {
        Err(error) if is_unreadable(&error) => Ok(false),
        result => result,
    }
}

/// Returns true if `error` means that the device cannot read the content.
fn is_unreadable(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: &[u8] = b"content";

    /// A content whose first bytes can be read, before reading fails with an error.
    fn failing_content(error: Errno) -> impl Read {
        struct Failing(Errno);
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
        }
        CONTENT[..3].chain(Failing(error))
    }

    #[test]
    fn content_that_the_device_cannot_read_is_damaged() {
        for checksum in [None, Some(Checksum::of(CONTENT))] {
            let content = || failing_content(Errno::IO);
            assert_eq!(read_intact(content(), CONTENT.len(), checksum).unwrap(), None, "{checksum:?}");
            let is_intact = is_intact(content(), CONTENT.len() as u64, checksum, |_| true);
            assert!(!is_intact.unwrap(), "{checksum:?}");
        }
    }

    #[test]
    fn other_errors_are_no_damage() {
        for error in [Errno::STALE, Errno::TIMEDOUT, Errno::NOMEM] {
            for checksum in [None, Some(Checksum::of(CONTENT))] {
                let content = || failing_content(error);
                read_intact(content(), CONTENT.len(), checksum).unwrap_err();
                is_intact(content(), CONTENT.len() as u64, checksum, |_| true).unwrap_err();
            }
        }
    }
}
