//! A file of which a few bytes are replaced while it is read.
//!
//! Some files need a small correction before a library decodes them as other programs do. Correcting a copy
//! would need as much memory as the file.

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use crate::image::size::to_usize;

/// Reads a file as if it contained other bytes in a few places.
pub(super) struct PatchedFile<'a> {
    file: Cursor<&'a [u8]>,
    patches: Vec<Patch>,
    /// Number of zeros after the end of the file.
    zero_count: usize,
}

/// Bytes that replace those of the file.
struct Patch {
    /// Offset of the replaced bytes in the file.
    offset: u64,
    bytes: Vec<u8>,
}

impl<'a> PatchedFile<'a> {
    pub(super) fn new(file: &'a [u8]) -> Self {
        Self { file: Cursor::new(file), patches: Vec::new(), zero_count: 0 }
    }

    /// Replaces the bytes at `offset`.
    pub(super) fn with_patch(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.patches.push(Patch { offset: offset as u64, bytes: bytes.to_vec() });
        self
    }

    /// Adds zeros at the end of the file.
    pub(super) fn with_zeros(self, zero_count: usize) -> Self {
        Self { zero_count, ..self }
    }

    /// Reads zeros after the end of the file.
    fn read_zeros(&mut self, buffer: &mut [u8]) -> usize {
        let position = self.file.position();
        let end = (self.file.get_ref().len() + self.zero_count) as u64;
        let length = to_usize(end.saturating_sub(position)).min(buffer.len());
        buffer.iter_mut().take(length).for_each(|byte| *byte = 0);
        self.file.set_position(position + length as u64);
        length
    }
}

impl Read for PatchedFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = self.file.position();
        let length = self.file.read(buffer)?;
        if length == 0 {
            return Ok(self.read_zeros(buffer));
        }
        let end = start + length as u64;
        for Patch { offset: patch_offset, bytes } in &self.patches {
            if end <= *patch_offset || patch_offset.saturating_add(bytes.len() as u64) <= start {
                continue;
            }
            for (byte, offset) in buffer.iter_mut().zip(start..end) {
                let index = offset.checked_sub(*patch_offset).map(to_usize);
                if let Some(&replacement) = index.and_then(|index| bytes.get(index)) {
                    *byte = replacement;
                }
            }
        }
        Ok(length)
    }
}

impl Seek for PatchedFile<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_and_zeros_are_read_in_reads_of_every_length() {
        for length in 1..=10 {
            let mut file =
                PatchedFile::new(b"0123456789").with_patch(4, b"abc").with_patch(9, b"d").with_zeros(2);
            let mut found: Vec<u8> = Vec::new();
            let mut buffer = vec![0; length];
            loop {
                match file.read(&mut buffer).unwrap() {
                    0 => break,
                    count => found.extend_from_slice(&buffer[..count]),
                }
            }
            assert_eq!(found, b"0123abc78d\0\0", "reads of {length} bytes");
            file.seek(SeekFrom::Start(5)).unwrap();
            file.read_exact(&mut buffer[..1]).unwrap();
            assert_eq!(buffer[0], b'b');
        }
    }
}
