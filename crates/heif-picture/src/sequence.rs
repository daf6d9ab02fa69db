//! Image sequences, which are tracks of pictures in the box `moov`.
//!
//! The first picture of a track is presented like an item, so the rest of the crate does not distinguish the two.

use crate::{
    alpha::names_alpha_channel,
    boxes::{Box4, Boxes, Reader, find_box},
    error::Error,
};

/// Maximum number of properties of a picture. Real files have at most five, and two that describe the orientation.
pub(crate) const MAX_PROPERTIES: usize = 8;

/// Maximum number of properties that describe the orientation.
const MAX_TURNS: usize = 2;

/// Boxes of a sample entry that have the content of a property of an item.
const PROPERTIES: [&[u8; 4]; 4] = [b"hvcC", b"av1C", b"colr", b"clap"];

/// The first picture of a sequence.
pub(crate) struct Sequence<'a> {
    pub(crate) colours: TrackPicture<'a>,
    pub(crate) alpha: Option<TrackPicture<'a>>,
    /// True if the colours are multiplied with the alpha channel.
    pub(crate) is_premultiplied: bool,
}

/// The first picture of a track that depends on no other picture.
pub(crate) struct TrackPicture<'a> {
    /// Type of the sample entry, which names the codec like the type of an item.
    pub(crate) kind: [u8; 4],
    /// Width and height in pixels.
    pub(crate) size: (u32, u32),
    /// Boxes that are like the properties of an item, at most [`MAX_PROPERTIES`].
    pub(crate) properties: Vec<Box4<'a>>,
    pub(crate) data: &'a [u8],
}

impl<'a> Sequence<'a> {
    /// Finds the first picture in the content of a box `moov`.
    ///
    /// Takes time in proportion to the length of the file at most.
    pub(crate) fn read(file: &'a [u8], moov: &'a [u8]) -> Result<Self, Error> {
        let mut candidates = tracks(moov).filter(Track::shows_pictures);
        let first = candidates.next().ok_or(Error::Corrupt("the sequence has no track of pictures"))?;
        // A disabled track is usually an alternative to an enabled one.
        let track =
            if first.is_enabled { first } else { candidates.find(|track| track.is_enabled).unwrap_or(first) };
        let alpha = tracks(moov).find(|other| other.is_alpha_channel_of(&track));
        Ok(Self {
            colours: track.first_picture(file)?,
            alpha: alpha.map(|alpha| alpha.first_picture(file)).transpose()?,
            is_premultiplied: alpha.is_some_and(|alpha| track.refers_to(b"prem", alpha.id)),
        })
    }
}

/// A track of a sequence.
#[derive(Clone, Copy)]
struct Track<'a> {
    id: u32,
    is_enabled: bool,
    /// Numbers a, b, c and d of the matrix that transforms the pictures. A point (x, y) moves to (ax + cy, bx + dy).
    matrix: [i32; 4],
    /// Type of the track's media.
    handler: &'a [u8; 4],
    /// Content of the box `tref`.
    references: &'a [u8],
    /// Content of the box `stbl`.
    samples: &'a [u8],
}

/// Iterates over the tracks in the content of a box `moov`. Leaves out tracks that lack a box.
fn tracks(moov: &[u8]) -> impl Iterator<Item = Track<'_>> {
    let boxes = Boxes::new(moov).map_while(Result::ok);
    boxes.filter(|found| found.kind == b"trak").filter_map(|track| Track::read(track.content))
}

impl<'a> Track<'a> {
    /// Reads the content of a box `trak`. Returns `None` if a box is missing or damaged.
    fn read(content: &'a [u8]) -> Option<Self> {
        let mut header = Reader(find_box(content, b"tkhd")?);
        let (version, flags) = header.version_and_flags().ok()?;
        // The times and the duration have eight bytes in version 1.
        let time_bytes = if version == 1 { 8 } else { 4 };
        header.bytes(2 * time_bytes).ok()?;
        let id = header.u32().ok()?;
        header.bytes(4 + time_bytes + 16).ok()?;
        let mut number = || header.u32().ok().map(u32::cast_signed);
        let [a, b, _, c, d] = [number()?, number()?, number()?, number()?, number()?];
        let media = find_box(content, b"mdia")?;
        let mut handler = Reader(find_box(media, b"hdlr")?);
        handler.bytes(8).ok()?;
        Some(Self {
            id,
            is_enabled: flags & 1 != 0,
            matrix: [a, b, c, d],
            handler: handler.array().ok()?,
            references: find_box(content, b"tref").unwrap_or_default(),
            samples: find_box(find_box(media, b"minf")?, b"stbl")?,
        })
    }

    /// Returns true if the track shows the pictures themselves, and not an alpha channel or thumbnails, for example.
    fn shows_pictures(&self) -> bool {
        matches!(self.handler, b"pict" | b"vide") && find_box(self.references, b"thmb").is_none()
    }

    /// Returns true if this track is an alpha channel of another track.
    fn is_alpha_channel_of(&self, other: &Self) -> bool {
        let names_alpha = || {
            let entry = self.sample_entry(0).ok()?;
            find_box(entry.boxes, b"auxi").map(names_alpha_channel)
        };
        self.handler == b"auxv" && self.refers_to(b"auxl", other.id) && names_alpha() == Some(true)
    }

    /// Returns true if the track has a reference of a type to another track.
    fn refers_to(&self, kind: &[u8; 4], id: u32) -> bool {
        let (ids, _) = find_box(self.references, kind).unwrap_or_default().as_chunks();
        ids.contains(&id.to_be_bytes())
    }

    /// Returns the first picture that depends on no other picture.
    fn first_picture(&self, file: &'a [u8]) -> Result<TrackPicture<'a>, Error> {
        let tables = SampleTables::read(self.samples)?;
        let sample = self.first_sync_sample()?;
        let position = tables.find_chunk(sample)?;
        let entry = self.sample_entry(position.description)?;
        let boxes = Boxes::new(entry.boxes).map_while(Result::ok);
        let mut properties: Vec<_> = boxes
            .filter_map(|found| match found.kind {
                // An auxiliary item has the same name in another box.
                b"auxi" => Some(Box4 { kind: b"auxC", ..found }),
                kind => PROPERTIES.contains(&kind).then_some(found),
            })
            .take(MAX_PROPERTIES - MAX_TURNS)
            .collect();
        properties.extend(self.turns()?);
        let data = tables.data(file, sample, &position)?;
        Ok(TrackPicture { kind: entry.kind, size: entry.size, properties, data })
    }

    /// Returns the properties that turn and mirror an item like the matrix of this track.
    fn turns(&self) -> Result<&'static [Box4<'static>], Error> {
        const fn quarter_turns_counterclockwise(content: &'static [u8; 1]) -> Box4<'static> {
            Box4 { kind: b"irot", content }
        }
        const LEFT_AND_RIGHT: Box4<'_> = Box4 { kind: b"imir", content: &[1] };
        const TOP_AND_BOTTOM: Box4<'_> = Box4 { kind: b"imir", content: &[0] };
        const LEFT: Box4<'_> = quarter_turns_counterclockwise(&[1]);
        const HALF: Box4<'_> = quarter_turns_counterclockwise(&[2]);
        const RIGHT: Box4<'_> = quarter_turns_counterclockwise(&[3]);
        Ok(match self.matrix.map(i32::signum) {
            [1, 0, 0, 1] => &[],
            [0, 1, -1, 0] => &[RIGHT],
            [-1, 0, 0, -1] => &[HALF],
            [0, -1, 1, 0] => &[LEFT],
            [-1, 0, 0, 1] => &[LEFT_AND_RIGHT],
            [1, 0, 0, -1] => &[TOP_AND_BOTTOM],
            [0, 1, 1, 0] => &[RIGHT, LEFT_AND_RIGHT],
            [0, -1, -1, 0] => &[LEFT, LEFT_AND_RIGHT],
            _ => return Err(Error::unsupported("a track that is turned by no multiple of 90 degrees")),
        })
    }

    /// Returns the index of the first sample that depends on no other.
    fn first_sync_sample(&self) -> Result<u32, Error> {
        // Without the box, no sample depends on another one.
        let Some(content) = find_box(self.samples, b"stss") else { return Ok(0) };
        let mut reader = Reader(content);
        reader.version_and_flags()?;
        let (numbers, _) = read_entries(&mut reader, 4)?.as_chunks::<4>();
        let &number = numbers
            .first()
            .ok_or_else(|| Error::unsupported("a sequence whose pictures all depend on others"))?;
        u32::from_be_bytes(number).checked_sub(1).ok_or(Error::Corrupt("a sample has the number 0"))
    }

    /// Reads the sample entry with this index.
    fn sample_entry(&self, index: u32) -> Result<SampleEntry<'a>, Error> {
        let mut reader = Reader(required_box(self.samples, b"stsd")?);
        // The boxes are counted instead.
        reader.bytes(8)?;
        let mut entries = Boxes::new(reader.0);
        let entry = usize::try_from(index).ok().and_then(|index| entries.nth(index));
        let Box4 { kind, content } = entry.ok_or(Error::Corrupt("a sample entry is missing"))??;
        let mut reader = Reader(content);
        reader.bytes(24)?;
        let size = (reader.u16()?.into(), reader.u16()?.into());
        // The resolution, the name of the encoder and the depth.
        reader.bytes(50)?;
        Ok(SampleEntry { kind: *kind, size, boxes: reader.0 })
    }
}

/// The description of samples.
struct SampleEntry<'a> {
    kind: [u8; 4],
    size: (u32, u32),
    boxes: &'a [u8],
}

/// The tables of a track that locate its samples.
struct SampleTables<'a> {
    /// The size in bytes of every sample, or 0 if `sizes` contains them.
    common_size: u32,
    sizes: &'a [[u8; 4]],
    /// Runs of chunks with the same number of samples: the first chunk, the samples per chunk, and the sample entry.
    runs: &'a [[u8; 12]],
    /// The offset in the file of each chunk.
    chunk_offsets: ChunkOffsets<'a>,
}

/// Offsets in the file, with 32 or 64 bits each.
enum ChunkOffsets<'a> {
    Narrow(&'a [[u8; 4]]),
    Wide(&'a [[u8; 8]]),
}

/// The chunk that contains a sample.
struct ChunkPosition {
    chunk: usize,
    /// Index of the first sample of the chunk.
    first_sample: u32,
    /// Index of the sample entry.
    description: u32,
}

impl<'a> SampleTables<'a> {
    /// Reads the tables in the content of a box `stbl`.
    fn read(content: &'a [u8]) -> Result<Self, Error> {
        let mut sizes = Reader(required_box(content, b"stsz")?);
        sizes.version_and_flags()?;
        let common_size = sizes.u32()?;
        let sizes = match common_size {
            0 => read_entries(&mut sizes, 4)?.as_chunks().0,
            _ => &[],
        };
        if common_size == 0 && sizes.is_empty() {
            // The samples are in fragments of the file, or there are none.
            return Err(Error::unsupported("a sequence without a table of its samples"));
        }
        let mut runs = Reader(required_box(content, b"stsc")?);
        runs.version_and_flags()?;
        let chunk_offsets = if let Some(offsets) = find_box(content, b"stco") {
            let mut offsets = Reader(offsets);
            offsets.version_and_flags()?;
            ChunkOffsets::Narrow(read_entries(&mut offsets, 4)?.as_chunks().0)
        } else {
            let mut offsets = Reader(required_box(content, b"co64")?);
            offsets.version_and_flags()?;
            ChunkOffsets::Wide(read_entries(&mut offsets, 8)?.as_chunks().0)
        };
        Ok(Self { common_size, sizes, runs: read_entries(&mut runs, 12)?.as_chunks().0, chunk_offsets })
    }

    /// Finds the chunk that contains the sample with this index.
    fn find_chunk(&self, sample: u32) -> Result<ChunkPosition, Error> {
        let mut next_chunk = 1;
        let mut first_sample = 0;
        for (index, run) in self.runs.iter().enumerate() {
            let [first_chunk, samples_per_chunk, description] = run_fields(run);
            // The last run extends to the last chunk.
            let end = match self.runs.get(index + 1) {
                Some(run) => run_fields(run)[0].into(),
                None => self.chunk_offsets.count() as u64 + 1,
            };
            if first_chunk != next_chunk || end <= first_chunk.into() {
                return Err(Error::Corrupt("the chunks of a track are not in order"));
            }
            let chunk_count = end - u64::from(first_chunk);
            let samples = chunk_count.saturating_mul(samples_per_chunk.into());
            let index_in_run = u64::from(sample) - first_sample;
            if let Some(chunk) = index_in_run.checked_div(samples_per_chunk.into())
                && index_in_run < samples
            {
                let index_in_chunk = index_in_run % u64::from(samples_per_chunk);
                return Ok(ChunkPosition {
                    chunk: usize::try_from(u64::from(first_chunk) - 1 + chunk).unwrap_or(usize::MAX),
                    first_sample: sample - u32::try_from(index_in_chunk).unwrap_or_default(),
                    description: description
                        .checked_sub(1)
                        .ok_or(Error::Corrupt("a sample entry is missing"))?,
                });
            }
            // The sum is at most `sample`, because the sample is in a later run.
            first_sample += samples;
            next_chunk = u32::try_from(end).unwrap_or(u32::MAX);
        }
        Err(Error::Corrupt("a sample is in no chunk"))
    }

    /// Returns the data of a sample.
    fn data(&self, file: &'a [u8], sample: u32, position: &ChunkPosition) -> Result<&'a [u8], Error> {
        let size = self.size(sample).ok_or(Error::Corrupt("a sample has no size"))?;
        let offset_in_chunk = if self.common_size > 0 {
            u64::from(sample - position.first_sample) * u64::from(self.common_size)
        } else {
            let earlier = self.sizes.get(position.first_sample as usize..sample as usize).unwrap_or_default();
            earlier.iter().map(|&size| u64::from(u32::from_be_bytes(size))).sum()
        };
        let chunk = self.chunk_offsets.get(position.chunk).ok_or(Error::Corrupt("a chunk is missing"))?;
        let data = chunk
            .checked_add(offset_in_chunk)
            .and_then(|offset| file.get(usize::try_from(offset).ok()?..)?.get(..usize::try_from(size).ok()?));
        match data {
            Some([]) => Err(Error::Corrupt("a sample is empty")),
            Some(data) => Ok(data),
            None => Err(Error::Corrupt("a sample lies outside the file")),
        }
    }

    fn size(&self, sample: u32) -> Option<u32> {
        if self.common_size > 0 {
            return Some(self.common_size);
        }
        self.sizes.get(usize::try_from(sample).ok()?).copied().map(u32::from_be_bytes)
    }
}

impl ChunkOffsets<'_> {
    fn count(&self) -> usize {
        match self {
            Self::Narrow(offsets) => offsets.len(),
            Self::Wide(offsets) => offsets.len(),
        }
    }

    fn get(&self, chunk: usize) -> Option<u64> {
        match self {
            Self::Narrow(offsets) => offsets.get(chunk).map(|&offset| u32::from_be_bytes(offset).into()),
            Self::Wide(offsets) => offsets.get(chunk).map(|&offset| u64::from_be_bytes(offset)),
        }
    }
}

fn run_fields(run: &[u8; 12]) -> [u32; 3] {
    let (fields, _) = run.as_chunks::<4>();
    [0, 1, 2].map(|index| fields.get(index).copied().map(u32::from_be_bytes).unwrap_or_default())
}

/// Reads the number of entries of a table, and returns the entries.
fn read_entries<'a>(reader: &mut Reader<'a>, entry_bytes: usize) -> Result<&'a [u8], Error> {
    let count = reader.u32()? as usize;
    let byte_count = count.saturating_mul(entry_bytes);
    reader.bytes(byte_count).map_err(|_| Error::Corrupt("a table of samples ends too early"))
}

fn required_box<'a>(content: &'a [u8], kind: &[u8; 4]) -> Result<&'a [u8], Error> {
    find_box(content, kind).ok_or(Error::Corrupt("a track lacks a table"))
}
