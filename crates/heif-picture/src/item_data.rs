//! The coded data of an item, which can lie in several parts of the file.

use std::borrow::Cow;

use crate::{boxes::Reader, error::Error};

/// Maximum number of extents of an item. An extent can take no byte in the file, so their number must be limited.
const MAX_EXTENTS: u16 = 256;

/// The location of an item's data.
#[derive(Clone, Copy)]
pub(crate) struct Location<'a> {
    /// The bytes that the offsets refer to: the file, or the box `idat`. `None` for another file, or for other items.
    source: Option<&'a [u8]>,
    base_offset: u64,
    extent_count: u16,
    /// The list of extents.
    extents: &'a [u8],
    sizes: FieldSizes,
}

/// Lengths in bytes of the fields of an extent.
#[derive(Clone, Copy)]
pub(crate) struct FieldSizes {
    pub(crate) offset: usize,
    pub(crate) length: usize,
    pub(crate) base_offset: usize,
    pub(crate) index: usize,
}

impl<'a> Location<'a> {
    /// Reads a location behind its item id. `source` is the source for each construction method.
    pub(crate) fn read(
        entry: &mut Reader<'a>,
        sizes: FieldSizes,
        has_method: bool,
        source: impl Fn(u16) -> Option<&'a [u8]>,
    ) -> Result<Self, Error> {
        let method = if has_method { entry.u16()? & 0xF } else { 0 };
        let file_index = entry.u16()?;
        let base_offset = entry.uint(sizes.base_offset)?;
        let extent_count = entry.u16()?;
        let extents = entry.bytes(usize::from(extent_count) * (sizes.index + sizes.offset + sizes.length))?;
        let source = source(method).filter(|_| file_index == 0);
        Ok(Self { source, base_offset, extent_count, extents, sizes })
    }

    /// Returns the location of data that lies in one piece and is not empty.
    pub(crate) fn whole(data: &'a [u8]) -> Self {
        // Without fields, the offset and the length are 0. The extent then covers the whole source.
        let sizes = FieldSizes { offset: 0, length: 0, base_offset: 0, index: 0 };
        Self { source: Some(data), base_offset: 0, extent_count: 1, extents: &[], sizes }
    }

    /// Finds the extents in the file.
    pub(crate) fn data(&self) -> Result<ItemData<'a>, Error> {
        if self.extent_count > MAX_EXTENTS {
            return Err(Error::unsupported(format!("an item with more than {MAX_EXTENTS} extents")));
        }
        let source = self
            .source
            .ok_or_else(|| Error::unsupported("an item that is stored in other items or files"))?;
        let mut extents = Vec::new();
        let mut fields = Reader(self.extents);
        for _ in 0..self.extent_count {
            fields.bytes(self.sizes.index)?;
            let offset = self.base_offset.checked_add(fields.uint(self.sizes.offset)?);
            let length = fields.uint(self.sizes.length)?;
            let extent = offset.and_then(|offset| {
                let rest = source.get(usize::try_from(offset).ok()?..)?;
                // A length of 0 means that the extent ends with its source.
                if length == 0 { Some(rest) } else { rest.get(..usize::try_from(length).ok()?) }
            });
            extents.push(extent.ok_or(Error::Corrupt("the data of an item lies outside the file"))?);
        }
        Ok(ItemData { extents })
    }
}

/// The coded data of an item.
pub(crate) struct ItemData<'a> {
    extents: Vec<&'a [u8]>,
}

impl<'a> ItemData<'a> {
    /// Returns the number of bytes.
    pub(crate) fn length(&self) -> u64 {
        self.extents.iter().map(|extent| extent.len() as u64).sum()
    }

    pub(crate) fn cursor(&self) -> Cursor<'a, '_> {
        Cursor { current: &[], later: &self.extents }
    }
}

/// Reads the extents of an item one after the other.
#[cfg_attr(feature = "avif", derive(Clone))]
pub(crate) struct Cursor<'a, 'extents> {
    current: &'a [u8],
    later: &'extents [&'a [u8]],
}

impl<'a> Cursor<'a, '_> {
    /// Moves to the next extent that is not empty, if the current one is empty. Returns false at the end.
    pub(crate) fn has_more(&mut self) -> bool {
        while self.current.is_empty() {
            let [next, later @ ..] = self.later else { return false };
            (self.current, self.later) = (next, later);
        }
        true
    }

    /// Returns the next bytes. Copies them only if they lie in several extents.
    pub(crate) fn bytes(&mut self, count: usize) -> Result<Cow<'a, [u8]>, Error> {
        self.has_more();
        if let Some((bytes, rest)) = self.current.split_at_checked(count) {
            self.current = rest;
            return Ok(Cow::Borrowed(bytes));
        }
        // Growing step by step could need three times the memory. A wrong count can be any number.
        let mut copy = Vec::with_capacity(count.min(self.remaining_length()));
        while copy.len() < count {
            let part = self.next_part(count - copy.len())?;
            copy.extend_from_slice(part);
        }
        Ok(Cow::Owned(copy))
    }

    /// Returns the number of bytes up to the end.
    pub(crate) fn remaining_length(&self) -> usize {
        self.later.iter().fold(self.current.len(), |sum, extent| sum.saturating_add(extent.len()))
    }

    /// Passes over the next bytes.
    pub(crate) fn skip(&mut self, mut count: usize) -> Result<(), Error> {
        while count > 0 {
            count -= self.next_part(count)?.len();
        }
        Ok(())
    }

    /// Returns at least one and at most `max_count` bytes of one extent.
    fn next_part(&mut self, max_count: usize) -> Result<&'a [u8], Error> {
        if !self.has_more() {
            return Err(Error::Corrupt("the data of an item ends too early"));
        }
        let (part, rest) = self.current.split_at(max_count.min(self.current.len()));
        self.current = rest;
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_several_extents_take_no_more_memory_than_their_number() {
        let data = ItemData { extents: vec![&[7; 3]; 100] };
        let mut cursor = data.cursor();
        let Cow::Owned(copy) = cursor.bytes(200).unwrap() else { panic!("the bytes are not copied") };
        assert_eq!((copy.len(), copy.capacity()), (200, 200));
        // Fewer bytes than these remain.
        assert!(cursor.bytes(101).is_err());
        assert!(data.cursor().bytes(usize::MAX).is_err());
    }
}
