//! The items of a file, their properties and the references between them.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    boxes::{Box4, Boxes, Reader, find_box},
    error::Error,
    item_data::{FieldSizes, Location},
    parts::Size,
    sequence::{MAX_PROPERTIES, Sequence, TrackPicture},
};

/// Maximum number of items of a file and of their properties. A phone's photo of 200 megapixels has about 1,000 items.
const MAX_ITEMS: usize = 4096;

/// An item, such as a picture or a tile.
pub(crate) struct Item<'a> {
    pub(crate) kind: [u8; 4],
    is_encrypted: bool,
    location: Option<Location<'a>>,
    /// Entries of the box `ipma`, which have two bytes each if the file has wide indices.
    properties: &'a [u8],
    has_wide_indices: bool,
    /// Ids of the items that this item is derived from, in the box `iref`.
    sources: &'a [u8],
    has_wide_ids: bool,
    /// Size of a picture of a sequence. Other items state their size in a property.
    size: Option<Size>,
}

/// A property of an item.
#[derive(Clone, Copy)]
pub(crate) struct Property<'a> {
    /// Index of the property in the file. Items share properties.
    pub(crate) index: usize,
    pub(crate) kind: &'a [u8; 4],
    pub(crate) content: &'a [u8],
    /// True if a reader that does not know the property must not show the item.
    pub(crate) is_essential: bool,
}

/// The parsed box `meta` of a file, or the first picture of a sequence in the same form.
#[derive(Default)]
pub(crate) struct Container<'a> {
    pub(crate) primary: u32,
    /// Pairs of an item and an auxiliary item of it, such as its alpha channel.
    pub(crate) auxiliaries: Vec<(u32, u32)>,
    /// Pairs of items of which one is multiplied with the other.
    premultiplied: BTreeSet<(u32, u32)>,
    items: BTreeMap<u32, Item<'a>>,
    properties: Vec<Box4<'a>>,
}

/// The contents of the boxes in `meta` that describe items.
#[derive(Default)]
struct MetaBoxes<'a> {
    primary: Option<&'a [u8]>,
    infos: Option<&'a [u8]>,
    locations: Option<&'a [u8]>,
    references: Option<&'a [u8]>,
    properties: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
}

impl<'a> Container<'a> {
    /// Reads the items of a file, or the sequence of a file that has no primary item.
    pub(crate) fn read(file: &'a [u8]) -> Result<Self, Error> {
        let boxes = find_box(file, b"meta").map(MetaBoxes::read).transpose()?;
        if let Some(boxes) = &boxes
            && let Some(primary) = boxes.primary
        {
            return Self::of_items(file, boxes, primary);
        }
        match find_box(file, b"moov") {
            Some(moov) => Ok(Self::of_sequence(Sequence::read(file, moov)?)),
            None if boxes.is_some() => Err(Error::Corrupt("the file names no primary item")),
            None => Err(Error::Corrupt("the file describes no picture")),
        }
    }

    fn of_items(file: &'a [u8], boxes: &MetaBoxes<'a>, primary: &'a [u8]) -> Result<Self, Error> {
        let mut primary = Reader(primary);
        let (version, _) = primary.version_and_flags()?;
        let mut container = Self {
            primary: primary.id(version > 0)?,
            items: read_items(boxes.infos.unwrap_or_default())?,
            ..Self::default()
        };
        container.read_locations(file, boxes.data, boxes.locations.unwrap_or_default())?;
        container.read_references(boxes.references.unwrap_or_default())?;
        container.read_properties(boxes.properties.unwrap_or_default())?;
        Ok(container)
    }

    fn of_sequence(sequence: Sequence<'a>) -> Self {
        const COLOURS: u32 = 1;
        const ALPHA: u32 = 2;
        let mut container = Self { primary: COLOURS, ..Self::default() };
        container.add_track_picture(COLOURS, sequence.colours);
        if let Some(alpha) = sequence.alpha {
            container.add_track_picture(ALPHA, alpha);
            container.auxiliaries.push((COLOURS, ALPHA));
        }
        if sequence.is_premultiplied {
            container.premultiplied.insert((COLOURS, ALPHA));
        }
        container
    }

    /// Adds a picture of a track as an item. At most two pictures can be added.
    fn add_track_picture(&mut self, id: u32, picture: TrackPicture<'a>) {
        /// Entries of the box `ipma` for the properties of two pictures.
        const INDICES: &[u8; 2 * MAX_PROPERTIES] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
        let start = self.properties.len();
        self.properties.extend(picture.properties);
        let item = Item {
            location: Some(Location::whole(picture.data)),
            properties: INDICES.get(start..self.properties.len()).unwrap_or_default(),
            size: Some(picture.size),
            ..Item::new(picture.kind, false)
        };
        self.items.insert(id, item);
    }

    /// Returns an item that is not encrypted.
    pub(crate) fn item(&self, id: u32) -> Result<&Item<'a>, Error> {
        let item = self.items.get(&id).ok_or(Error::Corrupt("an item is missing"))?;
        if item.is_encrypted {
            return Err(Error::unsupported("an encrypted item"));
        }
        Ok(item)
    }

    /// Returns the properties of an item in their order, in which transformations must be applied.
    pub(crate) fn properties(&self, item: &Item<'a>) -> impl Iterator<Item = Result<Property<'a>, Error>> {
        let mut entries = Reader(item.properties);
        let has_wide_indices = item.has_wide_indices;
        std::iter::from_fn(move || {
            let entry = if has_wide_indices {
                entries.u16().ok()?
            } else {
                // The highest bit marks an essential property in both widths.
                let entry = u16::from(entries.u8().ok()?);
                (entry & 0x80) << 8 | entry & 0x7F
            };
            Some((usize::from(entry & 0x7FFF), entry & 0x8000 != 0))
        })
        // An index of 0 means no property.
        .filter(|&(index, _)| index > 0)
        .map(|(index, is_essential)| {
            let &Box4 { kind, content } =
                self.properties.get(index - 1).ok_or(Error::Corrupt("a property is missing"))?;
            Ok(Property { index, kind, content, is_essential })
        })
    }

    /// Returns true if the colours of an item are multiplied with its alpha channel.
    pub(crate) fn is_premultiplied(&self, id: u32, alpha: u32) -> bool {
        self.premultiplied.contains(&(id, alpha)) || self.premultiplied.contains(&(alpha, id))
    }

    fn read_locations(
        &mut self,
        file: &'a [u8],
        item_data: Option<&'a [u8]>,
        content: &'a [u8],
    ) -> Result<(), Error> {
        let mut reader = Reader(content);
        let Ok((version, _)) = reader.version_and_flags() else { return Ok(()) };
        let (lengths, more_lengths) = (reader.u8()?, reader.u8()?);
        let sizes = FieldSizes {
            offset: usize::from(lengths >> 4),
            length: usize::from(lengths & 0xF),
            base_offset: usize::from(more_lengths >> 4),
            index: if version > 0 { usize::from(more_lengths & 0xF) } else { 0 },
        };
        if [sizes.offset, sizes.length, sizes.base_offset, sizes.index].iter().any(|&size| size > 8) {
            return Err(Error::Corrupt("an offset has more than eight bytes"));
        }
        for _ in 0..reader.id(version > 1)? {
            let id = reader.id(version > 1)?;
            let location = Location::read(&mut reader, sizes, version > 0, |method| match method {
                0 => Some(file),
                1 => item_data,
                _ => None,
            })?;
            if let Some(item) = self.items.get_mut(&id) {
                item.location = Some(location);
            }
        }
        Ok(())
    }

    fn read_references(&mut self, content: &'a [u8]) -> Result<(), Error> {
        let mut reader = Reader(content);
        let Ok((version, _)) = reader.version_and_flags() else { return Ok(()) };
        let has_wide_ids = version > 0;
        for reference in Boxes::new(reader.0) {
            let Box4 { kind, content } = reference?;
            let mut reader = Reader(content);
            let from = reader.id(has_wide_ids)?;
            let count = usize::from(reader.u16()?);
            let targets = reader.bytes(count * if has_wide_ids { 4 } else { 2 })?;
            match kind {
                b"dimg" => {
                    if let Some(item) = self.items.get_mut(&from) {
                        (item.sources, item.has_wide_ids) = (targets, has_wide_ids);
                    }
                }
                b"auxl" => self.auxiliaries.extend(ids(targets, has_wide_ids).map(|to| (to, from))),
                b"prem" => {
                    let free = MAX_ITEMS.saturating_sub(self.premultiplied.len());
                    self.premultiplied.extend(ids(targets, has_wide_ids).take(free).map(|to| (from, to)));
                }
                _ => {}
            }
            self.auxiliaries.truncate(MAX_ITEMS);
        }
        Ok(())
    }

    fn read_properties(&mut self, content: &'a [u8]) -> Result<(), Error> {
        for child in Boxes::new(content) {
            let Box4 { kind, content } = child?;
            match kind {
                b"ipco" => {
                    self.properties = Boxes::new(content).take(MAX_ITEMS).collect::<Result<_, _>>()?;
                }
                b"ipma" => self.read_associations(content)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_associations(&mut self, content: &'a [u8]) -> Result<(), Error> {
        let mut reader = Reader(content);
        let (version, flags) = reader.version_and_flags()?;
        let has_wide_indices = flags & 1 != 0;
        for _ in 0..reader.u32()? {
            let id = reader.id(version > 0)?;
            let count = usize::from(reader.u8()?);
            let properties = reader.bytes(if has_wide_indices { 2 * count } else { count })?;
            if let Some(item) = self.items.get_mut(&id) {
                (item.properties, item.has_wide_indices) = (properties, has_wide_indices);
            }
        }
        Ok(())
    }
}

impl<'a> Item<'a> {
    fn new(kind: [u8; 4], is_encrypted: bool) -> Self {
        Self {
            kind,
            is_encrypted,
            location: None,
            properties: &[],
            has_wide_indices: false,
            sources: &[],
            has_wide_ids: false,
            size: None,
        }
    }

    /// Returns the size of a picture of a sequence.
    pub(crate) fn size(&self) -> Option<Size> {
        self.size
    }

    /// Returns the location of the item's data.
    pub(crate) fn location(&self) -> Result<Location<'a>, Error> {
        self.location.ok_or(Error::Corrupt("an item has no data"))
    }

    /// Returns the ids of the items that this item is derived from.
    pub(crate) fn sources(&self) -> impl ExactSizeIterator<Item = u32> + DoubleEndedIterator {
        ids(self.sources, self.has_wide_ids)
    }
}

impl<'a> MetaBoxes<'a> {
    fn read(meta: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader(meta);
        reader.version_and_flags()?;
        let mut boxes = Self::default();
        for child in Boxes::new(reader.0) {
            let Box4 { kind, content } = child?;
            let field = match kind {
                b"pitm" => &mut boxes.primary,
                b"iinf" => &mut boxes.infos,
                b"iloc" => &mut boxes.locations,
                b"iref" => &mut boxes.references,
                b"iprp" => &mut boxes.properties,
                b"idat" => &mut boxes.data,
                _ => continue,
            };
            field.get_or_insert(content);
        }
        Ok(boxes)
    }
}

fn read_items(content: &[u8]) -> Result<BTreeMap<u32, Item<'_>>, Error> {
    let mut items = BTreeMap::new();
    let mut reader = Reader(content);
    let Ok((version, _)) = reader.version_and_flags() else { return Ok(items) };
    // The boxes are counted instead.
    reader.id(version > 0)?;
    for info in Boxes::new(reader.0) {
        if items.len() == MAX_ITEMS {
            return Err(Error::unsupported(format!("more than {MAX_ITEMS} items")));
        }
        let Box4 { kind: b"infe", content } = info? else { continue };
        let mut reader = Reader(content);
        let (version, _) = reader.version_and_flags()?;
        // Versions 0 and 1 describe no pictures.
        if version < 2 {
            continue;
        }
        let id = reader.id(version > 2)?;
        let is_encrypted = reader.u16()? != 0;
        items.entry(id).or_insert(Item::new(*reader.array()?, is_encrypted));
    }
    Ok(items)
}

fn ids(bytes: &[u8], are_wide: bool) -> impl ExactSizeIterator<Item = u32> + DoubleEndedIterator {
    bytes
        .chunks_exact(if are_wide { 4 } else { 2 })
        .map(|id| id.iter().fold(0, |id, &byte| id << 8 | u32::from(byte)))
}
