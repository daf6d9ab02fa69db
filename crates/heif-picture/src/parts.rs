//! The coded parts of a picture: the picture itself, or its tiles.

use std::collections::BTreeMap;

use crate::{
    boxes::Reader,
    coding::{Coding, Picture, config_kind},
    container::{Container, Item, Property},
    error::Error,
    geometry::{Rectangle, Transform},
    grid::Grid,
    item_data::Location,
    samples::Matrix,
};

/// Maximum number of parts of a picture, and of items that it is derived from. 25 megapixels in tiles of 256×256 with
/// alpha have 800 parts.
const MAX_PARTS: usize = 1200;

/// Maximum number of derivations between an item and a coded part, as from a grid to a tile.
const MAX_DEPTH: u32 = 4;

/// Maximum ratio of the data of all parts to the length of the file, besides [`MAX_SHARED_BYTES`]. Parts can share
/// data.
const MAX_SHARING: u64 = 4;

/// Number of bytes by which the data of all parts may exceed the length of the file in any case.
const MAX_SHARED_BYTES: u64 = 16 << 20;

/// Value of the property `lsel` for the highest layer, which the decoder of AV1 selects.
const HIGHEST_LAYER: u16 = 0xFFFF;

/// Width and height in pixels.
pub(crate) type Size = (u32, u32);

/// A coded part of a picture.
pub(crate) struct Part<'a> {
    pub(crate) id: u32,
    location: Location<'a>,
    data_length: u64,
    pub(crate) coded: Coding<'a>,
    /// Matrix according to the boxes, which overrides the one in the coded data.
    pub(crate) matrix: Option<Matrix>,
    /// Pixels of the picture that this part shows. The part may be larger. Empty if the part is not shown.
    pub(crate) position: Rectangle,
    /// Size of the item, which the coded data can contradict.
    item_size: Size,
    /// True if the item is a tile, or is derived into one.
    is_in_grid: bool,
}

impl Part<'_> {
    pub(crate) fn decode(&self) -> Result<Picture, Error> {
        self.coded.decode(&self.location.data()?)
    }

    pub(crate) fn decoder_bytes(&self) -> u64 {
        self.coded.decoder_bytes(self.data_length)
    }

    /// Returns the size that the decoded picture must have.
    pub(crate) fn decoded_size(&self) -> Size {
        if self.coded.is_stretched() { self.coded.shown_size() } else { self.item_size }
    }
}

/// The coded parts of an item.
pub(crate) struct Parts<'a> {
    /// Size of the item before `transform`.
    pub(crate) size: Size,
    /// Size of the decoded pixels, which are stretched to `size`.
    pub(crate) decoded_size: Size,
    pub(crate) transform: Transform,
    pub(crate) parts: Vec<Part<'a>>,
    /// Sum of the coded pixels of all parts.
    pub(crate) coded_pixels: u64,
    /// ICC profile of the item, or of the first item that it is derived from and that has one.
    pub(crate) icc_profile: Option<&'a [u8]>,
    /// Primaries and transfer function of the item, found in the same way.
    pub(crate) nclx: Option<(u16, u16)>,
}

/// The properties of an item that this crate uses.
#[derive(Default)]
struct ItemProperties<'a> {
    size: Option<Size>,
    config: Option<Property<'a>>,
    icc_profile: Option<&'a [u8]>,
    /// Primaries, transfer function and matrix.
    nclx: Option<(u16, u16, Matrix)>,
    transforms: Vec<Property<'a>>,
    /// Number of the set of layers to decode, in AV1.
    operating_point: u8,
}

/// An item whose parts are yet to be found.
struct PendingItem {
    id: u32,
    depth: u32,
    matrix: Option<Matrix>,
    position: Rectangle,
    /// The size that all tiles of the grid have.
    expected_size: Option<Size>,
    /// True if the item is a tile, or is derived into one.
    is_in_grid: bool,
}

impl<'a> Parts<'a> {
    /// Finds the coded parts of an item. `file_length` is the length of the whole file.
    pub(crate) fn find(container: &Container<'a>, id: u32, file_length: usize) -> Result<Self, Error> {
        let mut search = Search::new(container, file_length);
        let mut parts = search.start(id)?;
        let whole = Rectangle { left: 0, top: 0, width: parts.size.0, height: parts.size.1 };
        let item = PendingItem {
            id,
            depth: 0,
            matrix: None,
            position: whole,
            expected_size: Some(parts.size),
            is_in_grid: false,
        };
        search.visit_all(vec![item], &mut parts)?;
        if let Some(part) = parts.only_part_mut() {
            let (width, height) = part.decoded_size();
            part.position = Rectangle { left: 0, top: 0, width, height };
            parts.decoded_size = (width, height);
        }
        Ok(parts)
    }

    /// Returns the part that shows the whole item, unless the item is a grid.
    fn only_part_mut(&mut self) -> Option<&mut Part<'a>> {
        match &mut self.parts[..] {
            [part] if !part.is_in_grid => Some(part),
            _ => None,
        }
    }

    /// Returns the parts that have an alpha channel, each with the id of the channel.
    pub(crate) fn alpha_of_parts(
        &self,
        alpha_channels: &BTreeMap<u32, u32>,
    ) -> impl Iterator<Item = (&Part<'a>, u32)> {
        self.parts.iter().filter_map(|part| Some((part, *alpha_channels.get(&part.id)?)))
    }

    /// Finds the alpha channels of the parts of `colours`. Returns `None` if no part has one.
    pub(crate) fn find_alpha_of_parts(
        container: &Container<'a>,
        colours: &Self,
        alpha_channels: &BTreeMap<u32, u32>,
        file_length: usize,
    ) -> Result<Option<Self>, Error> {
        let mut pending = Vec::new();
        for (part, id) in colours.alpha_of_parts(alpha_channels) {
            if !part.is_in_grid {
                // The part is the whole picture.
                return Self::find(container, id, file_length).map(Some);
            }
            pending.push(PendingItem {
                id,
                depth: 1,
                matrix: None,
                position: part.position,
                expected_size: Some(part.item_size),
                is_in_grid: true,
            });
        }
        if pending.is_empty() {
            return Ok(None);
        }
        let mut alpha = Self {
            size: colours.size,
            decoded_size: colours.decoded_size,
            transform: Transform::new(colours.size),
            parts: Vec::new(),
            coded_pixels: 0,
            icc_profile: None,
            nclx: None,
        };
        Search::new(container, file_length).visit_all(pending, &mut alpha)?;
        Ok(Some(alpha))
    }
}

struct Search<'a, 'container> {
    container: &'container Container<'a>,
    /// Configurations by the index of their property, with the sizes that they state.
    coded: BTreeMap<usize, Coding<'a>>,
    /// The same with the headers among the data, by the id of the item. A grid can show an item many times.
    coded_items: BTreeMap<u32, Coding<'a>>,
    /// Length of the data of all parts.
    data_bytes: u64,
    file_length: usize,
}

impl<'a, 'container> Search<'a, 'container> {
    fn new(container: &'container Container<'a>, file_length: usize) -> Self {
        Self { container, coded: BTreeMap::new(), coded_items: BTreeMap::new(), data_bytes: 0, file_length }
    }

    /// Finds the parts of all pending items.
    fn visit_all(&mut self, mut pending: Vec<PendingItem>, parts: &mut Parts<'a>) -> Result<(), Error> {
        let mut item_count = 0;
        while let Some(next) = pending.pop() {
            item_count += 1;
            self.visit(&next, &mut pending, parts)?;
            if item_count + pending.len() > MAX_PARTS {
                return Err(Error::unsupported(format!("a picture of more than {MAX_PARTS} parts")));
            }
        }
        Ok(())
    }

    /// Reads the size and the transformations of an item. Follows items that are derived from exactly one other item.
    fn start(&self, id: u32) -> Result<Parts<'a>, Error> {
        let mut chain = vec![id];
        let mut sources = self.container.item(id)?.sources();
        while let Some(source) = sources.next()
            && chain.len() <= MAX_DEPTH as usize
        {
            chain.push(source);
            sources = self.container.item(source)?.sources();
        }
        let size = self.size_of(id)?;
        let mut parts = Parts {
            size,
            decoded_size: size,
            transform: Transform::new(size),
            parts: Vec::new(),
            coded_pixels: 0,
            icc_profile: None,
            nclx: None,
        };
        for &id in &chain {
            let properties = self.properties(self.container.item(id)?)?;
            parts.icc_profile = parts.icc_profile.or(properties.icc_profile);
            parts.nclx = parts.nclx.or(properties.nclx.map(|(primaries, transfer, _)| (primaries, transfer)));
        }
        for property in self.properties(self.container.item(id)?)?.transforms {
            parts.transform.apply(property.kind, property.content)?;
        }
        Ok(parts)
    }

    /// Returns the size of an item before its transformations.
    fn size_of(&self, id: u32) -> Result<Size, Error> {
        let item = self.container.item(id)?;
        let size = match &item.kind {
            b"grid" => Grid::read(item)?.size,
            _ => self.properties(item)?.size.ok_or(Error::Corrupt("an item has no size"))?,
        };
        check_not_empty(size)
    }

    /// Finds the parts of an item, or appends the items that it is derived from to `pending`.
    fn visit(
        &mut self,
        next: &PendingItem,
        pending: &mut Vec<PendingItem>,
        parts: &mut Parts<'a>,
    ) -> Result<(), Error> {
        let item = self.container.item(next.id)?;
        let properties = self.properties(item)?;
        let size = self.size_of(next.id)?;
        if next.expected_size.is_some_and(|expected| expected != size) {
            return Err(Error::Corrupt("the parts of the picture have different sizes"));
        }
        if next.depth > 0 && !properties.transforms.is_empty() {
            return Err(Error::unsupported("a part of a picture that is turned or cropped on its own"));
        }
        if next.depth > MAX_DEPTH {
            return Err(Error::unsupported(format!("a picture that is derived more than {MAX_DEPTH} times")));
        }
        let matrix = properties.nclx.map(|(_, _, matrix)| matrix).or(next.matrix);
        let is_in_grid = next.is_in_grid || &item.kind == b"grid";
        let mut derive = |id, position, expected_size| {
            let depth = next.depth + 1;
            pending.push(PendingItem { id, depth, matrix, position, expected_size, is_in_grid });
        };
        match &item.kind {
            #[cfg(feature = "avif")]
            b"av01" if next.is_in_grid => Err(Error::Av1Grid),
            kind if config_kind(kind).is_some() => {
                let part = self.coded_part(next, &properties, matrix, size)?;
                let (width, height) = part.coded.shown_size();
                if !part.coded.is_stretched() && (width < size.0 || height < size.1) {
                    return Err(Error::Corrupt("a coded picture is smaller than its item"));
                }
                parts.coded_pixels = parts.coded_pixels.saturating_add(part.coded.pixels());
                parts.parts.push(part);
                Ok(())
            }
            b"grid" => {
                let grid = Grid::read(item)?;
                if item.sources().len() > MAX_PARTS {
                    return Err(Error::unsupported(format!("a picture of more than {MAX_PARTS} parts")));
                }
                let first = item.sources().next().ok_or(Error::Corrupt("a grid has no tiles"))?;
                let tile_size = self.size_of(first)?;
                for (id, position) in
                    item.sources().zip(grid.tile_positions(tile_size, item.sources().len())?)
                {
                    derive(id, place(position, next.position), Some(tile_size));
                }
                Ok(())
            }
            b"iden" => match item.sources().collect::<Vec<_>>()[..] {
                [source] => {
                    derive(source, next.position, Some(size));
                    Ok(())
                }
                _ => Err(Error::Corrupt("an identical item has not exactly one source")),
            },
            b"iovl" => Err(Error::unsupported("an overlay of pictures")),
            &kind => Err(Error::OtherCodec(kind)),
        }
    }

    fn coded_part(
        &mut self,
        next: &PendingItem,
        properties: &ItemProperties<'a>,
        matrix: Option<Matrix>,
        item_size: Size,
    ) -> Result<Part<'a>, Error> {
        let property = properties.config.ok_or(Error::Corrupt("a coded picture has no configuration"))?;
        let mut coded = match self.coded.get(&property.index) {
            Some(&known) => known,
            None => {
                let coded = Coding::read(&property)?;
                self.coded.insert(property.index, coded);
                coded
            }
        };
        let location = self.container.item(next.id)?.location()?;
        let data = location.data()?;
        self.data_bytes = self.data_bytes.saturating_add(data.length());
        if self.data_bytes
            > MAX_SHARING.saturating_mul(self.file_length as u64).saturating_add(MAX_SHARED_BYTES)
        {
            return Err(Error::Corrupt("many parts of the picture share their data"));
        }
        if let Some(&known) = self.coded_items.get(&next.id) {
            coded = known;
        } else {
            coded.set_operating_point(properties.operating_point);
            coded.add_headers_in(&data)?;
            self.coded_items.insert(next.id, coded);
        }
        if coded.pixels() == 0 {
            return Err(Error::Corrupt("a coded picture states no size"));
        }
        Ok(Part {
            id: next.id,
            location,
            data_length: data.length(),
            coded,
            matrix,
            position: next.position,
            item_size,
            is_in_grid: next.is_in_grid,
        })
    }

    fn properties(&self, item: &Item<'a>) -> Result<ItemProperties<'a>, Error> {
        let mut found = ItemProperties { size: item.size(), ..ItemProperties::default() };
        let config_kind = config_kind(&item.kind);
        for property in self.container.properties(item) {
            let property = property?;
            let mut reader = Reader(property.content);
            match property.kind {
                b"ispe" => {
                    reader.version_and_flags()?;
                    found.size = Some(check_not_empty((reader.u32()?, reader.u32()?))?);
                }
                kind if Some(kind) == config_kind => found.config = Some(property),
                // The configuration of a decoder that does not decode the item.
                b"hvcC" | b"av1C" => {}
                b"a1op" => found.operating_point = reader.u8()?,
                b"lsel" if &item.kind == b"av01" && reader.u16()? != HIGHEST_LAYER => {
                    return Err(Error::unsupported("a picture of which one layer is selected"));
                }
                b"colr" => match reader.array()? {
                    b"nclx" => {
                        let (primaries, transfer) = (reader.u16()?, reader.u16()?);
                        let coefficients = reader.u16()?;
                        let is_full_range = reader.u8()? & 0x80 != 0;
                        found.nclx = Some((primaries, transfer, Matrix { coefficients, is_full_range }));
                    }
                    b"prof" | b"rICC" if !reader.0.is_empty() => found.icc_profile = Some(reader.0),
                    _ => {}
                },
                // A mirroring or a rotation of 0 degrees is a transformation, too.
                b"irot" | b"imir" | b"clap" => found.transforms.push(property),
                b"pixi" | b"pasp" | b"auxC" | b"rloc" | b"lsel" => {}
                kind if property.is_essential => {
                    return Err(Error::unsupported(format!(
                        "the essential property `{}`",
                        kind.escape_ascii()
                    )));
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

fn check_not_empty((width, height): Size) -> Result<Size, Error> {
    if width == 0 || height == 0 {
        return Err(Error::Corrupt("an item has the width or height 0"));
    }
    Ok((width, height))
}

/// Moves a part of an item to the position of the item in the picture, and crops the part to the item.
fn place(part: Rectangle, item: Rectangle) -> Rectangle {
    let side = |start: u32, length: u32, limit: u32| limit.saturating_sub(start).min(length);
    Rectangle {
        left: item.left.saturating_add(part.left),
        top: item.top.saturating_add(part.top),
        width: side(part.left, part.width, item.width),
        height: side(part.top, part.height, item.height),
    }
}
