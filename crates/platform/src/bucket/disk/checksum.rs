//! A [`Checksum`] is stored with an object's file, as an extended attribute of the file.
//!
//! The attribute belongs to the file and not to its name. So a file gets its name and its checksum in one step,
//! a file that replaces another one does not inherit the checksum of that file, and a file that was copied into
//! the bucket has none.

use std::{
    fs::File,
    io::{self, Read},
};

use rustix::{
    fs::{XattrFlags, fgetxattr, fsetxattr},
    io::Errno,
};

/// Name of the extended attribute. Linux requires the prefix `user.`.
const ATTRIBUTE_NAME: &str = "user.image-pipeline.checksum";

/// Length and CRC-32 of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checksum {
    /// Length in bytes.
    pub(super) length: u64,
    crc32: u32,
}

impl Checksum {
    /// Computes the checksum of `data`.
    pub(super) fn of(data: &[u8]) -> Self {
        Self { length: data.len() as u64, crc32: crc32fast::hash(data) }
    }

    /// Computes the checksum of the rest of `content`.
    pub(super) fn of_content(mut content: impl Read) -> io::Result<Self> {
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = [0; 16 << 10];
        let mut length = 0;
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return Ok(Self { length, crc32: hasher.finalize() }),
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    length += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Stores the checksum with `file`. Syncing the file makes the checksum durable, too.
    pub(super) fn store(&self, file: &File) -> Result<(), Errno> {
        let Self { length, crc32 } = self;
        let text = format!("crc32={crc32:08x} length={length}");
        fsetxattr(file, ATTRIBUTE_NAME, text.as_bytes(), XattrFlags::empty())
    }

    /// Reads the checksum that is stored with `file`.
    ///
    /// Returns `None` if the file has no checksum, or none of the form that [`Self::store`] writes. The
    /// content cannot be checked then.
    pub(super) fn load(file: &File) -> Option<Self> {
        let mut buffer = [0; 64];
        let length = fgetxattr(file, ATTRIBUTE_NAME, &mut buffer[..]).ok()?;
        Self::parse(std::str::from_utf8(buffer.get(..length)?).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (crc32, length) = text.strip_prefix("crc32=")?.split_once(" length=")?;
        let crc32 = (crc32.len() == 8).then(|| u32::from_str_radix(crc32, 16).ok()).flatten()?;
        Some(Self { length: length.parse().ok()?, crc32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_checksum_is_loaded_unchanged() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(Checksum::load(&file), None);
        for data in [&b""[..], b"123456789", &[0; 100_000]] {
            let checksum = Checksum::of(data);
            assert_eq!(Checksum::of_content(data).unwrap(), checksum);
            checksum.store(&file).unwrap();
            assert_eq!(Checksum::load(&file), Some(checksum));
        }
        // The check value of CRC-32, as catalogues of CRCs list it.
        assert_eq!(Checksum::of(b"123456789"), Checksum { length: 9, crc32: 0xcbf4_3926 });
    }

    #[test]
    fn malformed_attribute_is_no_checksum() {
        let file = tempfile::tempfile().unwrap();
        let too_long = format!("crc32=00000000 length={}", "0".repeat(60));
        let malformed: [&[u8]; 6] = [
            b"",
            &[0; 20],
            b"crc32=0 length=0",
            b"crc32=00000000 length=",
            b"crc32=00000000 length=-1",
            too_long.as_bytes(),
        ];
        for text in malformed {
            fsetxattr(&file, ATTRIBUTE_NAME, text, XattrFlags::empty()).unwrap();
            assert_eq!(Checksum::load(&file), None, "{text:?}");
        }
    }
}
