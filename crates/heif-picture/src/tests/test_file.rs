//! Writes HEIC files with any structure.

use crate::{
    boxes::{Box4, Boxes, Reader},
    container::Container,
};

/// A picture of 64×64 pixels in 4:4:4, whose quarters are red, green, blue and yellow. libheif wrote the file.
pub(super) const QUARTERS: &[u8] = include_bytes!("quarters.heic");

/// Side of [`QUARTERS`] in pixels.
pub(super) const SIDE: u32 = 64;

/// A file to be written.
#[derive(Clone, Default)]
pub(super) struct TestFile {
    pub(super) primary: u16,
    pub(super) items: Vec<TestItem>,
    /// Type, source and targets of each reference.
    pub(super) references: Vec<(&'static [u8; 4], u16, Vec<u16>)>,
}

/// An item of a file to be written.
#[derive(Clone)]
pub(super) struct TestItem {
    pub(super) id: u16,
    pub(super) kind: &'static [u8; 4],
    pub(super) properties: Vec<(&'static [u8; 4], Vec<u8>)>,
    pub(super) extents: Vec<Vec<u8>>,
    pub(super) is_encrypted: bool,
}

impl TestFile {
    /// Returns a file with one coded picture, which is [`QUARTERS`].
    pub(super) fn with_picture() -> Self {
        Self { primary: 1, items: vec![TestItem::picture(1)], references: Vec::new() }
    }

    /// Returns a file whose primary item, 100, is a grid of copies of the item 1.
    pub(super) fn with_grid((rows, columns): (u8, u8), size: (u16, u16)) -> Self {
        let tiles = vec![1; usize::from(rows) * usize::from(columns)];
        Self {
            primary: 100,
            items: vec![TestItem::picture(1), TestItem::grid(100, (rows, columns), size)],
            references: vec![(b"dimg", 100, tiles)],
        }
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut infos = vec![0, 0, 0, 0];
        infos.extend(length16(self.items.len()));
        let (mut locations, mut data) = (vec![1, 0, 0, 0, 0x44, 0], Vec::new());
        locations.extend(length16(self.items.len()));
        let (mut properties, mut associations) = (Vec::new(), vec![0, 0, 0, 1]);
        associations.extend(length32(self.items.len()));
        let mut property_count = 0u16;
        for item in &self.items {
            let protection = u16::from(item.is_encrypted).to_be_bytes();
            let info = [&[2, 0, 0, 0], &item.id.to_be_bytes()[..], &protection, item.kind, &[0]].concat();
            infos.extend(write_box(b"infe", &info));
            // The data is in the box `idat`.
            locations.extend([item.id.to_be_bytes(), [0, 1], [0, 0], length16(item.extents.len())].concat());
            for extent in &item.extents {
                locations.extend([length32(data.len()), length32(extent.len())].concat());
                data.extend(extent);
            }
            associations.extend(item.id.to_be_bytes());
            associations.push(u8::try_from(item.properties.len()).unwrap());
            for (kind, content) in &item.properties {
                properties.extend(write_box(kind, content));
                property_count += 1;
                // Every property is essential.
                associations.extend((0x8000 | property_count).to_be_bytes());
            }
        }
        let mut references = vec![0, 0, 0, 0];
        for (kind, from, to) in &self.references {
            let mut content = [from.to_be_bytes(), length16(to.len())].concat();
            content.extend(to.iter().flat_map(|id| id.to_be_bytes()));
            references.extend(write_box(kind, &content));
        }
        let properties = [write_box(b"ipco", &properties), write_box(b"ipma", &associations)].concat();
        let primary = [&[0; 4][..], &self.primary.to_be_bytes()].concat();
        let meta = [
            vec![0; 4],
            write_box(b"pitm", &primary),
            write_box(b"iinf", &infos),
            write_box(b"iloc", &locations),
            write_box(b"iref", &references),
            write_box(b"iprp", &properties),
            write_box(b"idat", &data),
        ];
        [write_box(b"ftyp", b"heic\0\0\0\0mif1heic"), write_box(b"meta", &meta.concat())].concat()
    }
}

impl TestItem {
    /// Returns the coded picture of [`QUARTERS`].
    pub(super) fn picture(id: u16) -> Self {
        Self::from_file(QUARTERS, id, b"hvc1", b"hvcC")
    }

    /// Returns the primary item of a file with its configuration and the size of [`QUARTERS`].
    pub(super) fn from_file(
        file: &[u8],
        id: u16,
        kind: &'static [u8; 4],
        config_kind: &'static [u8; 4],
    ) -> Self {
        let container = Container::read(file).unwrap();
        let item = container.item(container.primary).unwrap();
        let data = item.location().unwrap().data().unwrap();
        let length = usize::try_from(data.length()).unwrap();
        let extents = vec![data.cursor().bytes(length).unwrap().into_owned()];
        let properties = container.properties(item).map(Result::unwrap);
        let config = properties.into_iter().find(|property| property.kind == config_kind).unwrap();
        let properties = vec![(config_kind, config.content.to_vec()), (b"ispe", ispe(SIDE, SIDE))];
        Self { id, kind, properties, extents, is_encrypted: false }
    }

    /// Returns a coded picture whose data is missing, with one parameter set.
    pub(super) fn with_parameter_set(id: u16, parameter_set: &[u8], (width, height): (u32, u32)) -> Self {
        let properties = vec![(b"hvcC", hvcc(&[parameter_set])), (b"ispe", ispe(width, height))];
        // An empty extent would extend to the end of the box.
        Self { id, kind: b"hvc1", properties, extents: Vec::new(), is_encrypted: false }
    }

    pub(super) fn grid(id: u16, (rows, columns): (u8, u8), (width, height): (u16, u16)) -> Self {
        let data = [&[0, 0, rows - 1, columns - 1], &width.to_be_bytes()[..], &height.to_be_bytes()].concat();
        let properties = vec![(b"ispe", ispe(width.into(), height.into()))];
        Self { id, kind: b"grid", properties, extents: vec![data], is_encrypted: false }
    }

    /// Adds the property of an alpha channel.
    pub(super) fn with_alpha_name(mut self) -> Self {
        let name = b"\0\0\0\0urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0";
        self.properties.push((b"auxC", name.to_vec()));
        self
    }

    pub(super) fn with(mut self, kind: &'static [u8; 4], content: impl Into<Vec<u8>>) -> Self {
        self.properties.push((kind, content.into()));
        self
    }
}

fn length16(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap().to_be_bytes()
}

pub(super) fn length32(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap().to_be_bytes()
}

pub(super) fn write_box(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [&length32(content.len() + 8), kind, content].concat()
}

pub(super) fn ispe(width: u32, height: u32) -> Vec<u8> {
    [[0; 4], width.to_be_bytes(), height.to_be_bytes()].concat()
}

/// Writes a configuration in which each unit has a length of four bytes.
pub(super) fn hvcc(parameter_sets: &[&[u8]]) -> Vec<u8> {
    let mut content = vec![1; 21];
    content.push(0xFF);
    content.push(u8::try_from(parameter_sets.len()).unwrap());
    for set in parameter_sets {
        content.extend([33, 0, 1]);
        content.extend(length16(set.len()));
        content.extend(*set);
    }
    content
}

/// Writes a sequence parameter set for a picture in 4:2:0 with 8 bits.
pub(super) fn sps(width: u32, height: u32, colours: Option<(u8, u8)>) -> Vec<u8> {
    let mut bits = Bits::default();
    // The id, one layer, and a profile, of which the decoder reads nothing.
    bits.write(1, 8);
    for _ in 0..12 {
        bits.write(0x55, 8);
    }
    bits.write_golomb(0);
    bits.write_golomb(1);
    bits.write_golomb(width);
    bits.write_golomb(height);
    bits.write(0, 1);
    // 8 bits per sample.
    bits.write_golomb(0);
    bits.write_golomb(0);
    bits.write_golomb(0);
    bits.write(1, 1);
    // Three sizes of buffers, and blocks of 8 to 16 pixels with transforms of 4 to 8 pixels.
    for number in [0, 0, 0, 0, 1, 0, 1, 0, 0] {
        bits.write_golomb(number);
    }
    // No scaling lists, asymmetric partitions, filters or PCM.
    bits.write(0, 4);
    bits.write_golomb(0);
    bits.write(0, 3);
    match colours {
        None => bits.write(0, 1),
        Some((primaries, transfer)) => {
            bits.write(0b1001, 4);
            bits.write(0b00011, 5);
            for number in [primaries, transfer, 1] {
                bits.write(number.into(), 8);
            }
            bits.write(0, 7);
        }
    }
    bits.write(0b01, 2);
    [&[0x42, 1], &bits.bytes[..]].concat()
}

/// Writes numbers of any number of bits.
#[derive(Default)]
pub(super) struct Bits {
    pub(super) bytes: Vec<u8>,
    count: usize,
}

impl Bits {
    pub(super) fn write(&mut self, number: u64, bit_count: u32) {
        for bit in (0..bit_count).rev() {
            if self.count.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |= u8::from(number >> bit & 1 != 0) << (7 - self.count % 8);
            self.count += 1;
        }
    }

    /// Writes a number in the Exp-Golomb code.
    pub(super) fn write_golomb(&mut self, number: u32) {
        let number = u64::from(number) + 1;
        let bit_count = number.ilog2();
        self.write(0, bit_count);
        self.write(number, bit_count + 1);
    }
}

/// Returns the offset of a box of this type inside `meta`.
pub(super) fn find_in_meta(file: &[u8], wanted_kind: &[u8; 4]) -> usize {
    let meta = Boxes::new(file).map(Result::unwrap).find(|found| found.kind == b"meta").unwrap();
    let mut reader = Reader(meta.content);
    reader.version_and_flags().unwrap();
    let Box4 { content, .. } =
        Boxes::new(reader.0).map(Result::unwrap).find(|b| b.kind == wanted_kind).unwrap();
    content.as_ptr().addr() - file.as_ptr().addr()
}
