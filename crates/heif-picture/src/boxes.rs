//! Boxes, and the integers in them.

use crate::error::Error;

/// Reads big-endian integers from the start of a slice.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Error::Corrupt("a box ends too early"))?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Reads an integer of 0 to 8 bytes. An integer of 0 bytes is 0.
    pub(crate) fn uint(&mut self, byte_count: usize) -> Result<u64, Error> {
        Ok(self.bytes(byte_count)?.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        let &[byte] = self.array()?;
        Ok(byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Error> {
        self.array().copied().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        self.array().copied().map(u32::from_be_bytes)
    }

    /// Reads an item id, which has 32 bits in newer versions of a box.
    pub(crate) fn id(&mut self, is_wide: bool) -> Result<u32, Error> {
        if is_wide { self.u32() } else { self.u16().map(u32::from) }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Error> {
        self.bytes(N)?.first_chunk().ok_or(Error::Corrupt("a box ends too early"))
    }

    /// Reads the version and the flags at the start of a full box.
    pub(crate) fn version_and_flags(&mut self) -> Result<(u8, u32), Error> {
        let &[version, high, middle, low] = self.array()?;
        Ok((version, u32::from_be_bytes([0, high, middle, low])))
    }
}

/// A box.
#[derive(Clone, Copy)]
pub(crate) struct Box4<'a> {
    /// The type of the box, four characters.
    pub(crate) kind: &'a [u8; 4],
    /// The bytes after the header.
    pub(crate) content: &'a [u8],
}

/// Iterates over consecutive boxes. The content of the last one may be cut off.
pub(crate) struct Boxes<'a>(Reader<'a>);

impl<'a> Boxes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(Reader(bytes))
    }

    fn read(&mut self) -> Result<Box4<'a>, Error> {
        let (size, kind) = (self.0.u32()?, self.0.array()?);
        let content_length = match size {
            // The box extends to the end.
            0 => Some(u64::MAX),
            1 => self.0.uint(8)?.checked_sub(16),
            size => u64::from(size).checked_sub(8),
        };
        let content_length = content_length.ok_or(Error::Corrupt("a box is shorter than its header"))?;
        let content_length = usize::try_from(content_length).unwrap_or(usize::MAX).min(self.0.0.len());
        Ok(Box4 { kind, content: self.0.bytes(content_length)? })
    }
}

impl<'a> Iterator for Boxes<'a> {
    type Item = Result<Box4<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.0.is_empty() {
            return None;
        }
        let result = self.read();
        if result.is_err() {
            self.0 = Reader(&[]);
        }
        Some(result)
    }
}

/// Returns the content of the first box of this type. Ignores everything behind a box whose header is damaged.
pub(crate) fn find_box<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    Boxes::new(bytes).map_while(Result::ok).find(|found| found.kind == kind).map(|found| found.content)
}

/// Returns true if the file begins with a list of brands of which one satisfies `predicate`.
pub(crate) fn has_brand(file: &[u8], predicate: impl Fn(&[u8; 4]) -> bool) -> bool {
    /// Maximum number of brands that are read. Real files have fewer than twenty.
    const MAX_BRANDS: usize = 64;
    let Some(Ok(Box4 { kind: b"ftyp", content })) = Boxes::new(file).next() else { return false };
    let (fields, _) = content.as_chunks::<4>();
    // The second field is the version of the first brand.
    fields.iter().take(MAX_BRANDS).enumerate().any(|(index, field)| index != 1 && predicate(field))
}
