//! Sequences to be written.

use super::test_file::{TestItem, length32, write_box};

const UPRIGHT: [i32; 4] = [1, 0, 0, 1];

/// Offset of the first chunk: behind the box `ftyp` and the header of the box `mdat`.
pub(super) const DATA_OFFSET: usize = 24 + 8;

/// A sequence to be written.
#[derive(Clone)]
pub(super) struct TestSequence {
    pub(super) tracks: Vec<TestTrack>,
}

/// A track of a sequence to be written.
#[derive(Clone)]
pub(super) struct TestTrack {
    pub(super) id: u32,
    pub(super) handler: &'static [u8; 4],
    pub(super) is_enabled: bool,
    pub(super) matrix: [i32; 4],
    /// Type and targets of each reference.
    pub(super) references: Vec<(&'static [u8; 4], Vec<u32>)>,
    pub(super) entry_kind: &'static [u8; 4],
    pub(super) size: (u16, u16),
    pub(super) entry_boxes: Vec<(&'static [u8; 4], Vec<u8>)>,
    /// The samples of each chunk.
    pub(super) chunks: Vec<Vec<Vec<u8>>>,
    /// Numbers of the samples that depend on no other.
    pub(super) sync_samples: Option<Vec<u32>>,
    pub(super) has_wide_offsets: bool,
    /// True if all samples have the length of the first one.
    pub(super) has_common_size: bool,
    /// True if the header has the version with times of eight bytes.
    pub(super) has_wide_times: bool,
}

impl TestTrack {
    /// Returns a track of one picture, which is `QUARTERS`.
    pub(super) fn with_picture(id: u32) -> Self {
        let picture = TestItem::picture(1);
        Self {
            id,
            handler: b"pict",
            is_enabled: true,
            matrix: UPRIGHT,
            references: Vec::new(),
            entry_kind: b"hvc1",
            size: (64, 64),
            entry_boxes: picture.properties.into_iter().filter(|(kind, _)| *kind == b"hvcC").collect(),
            chunks: vec![picture.extents],
            sync_samples: None,
            has_wide_offsets: false,
            has_common_size: false,
            has_wide_times: false,
        }
    }

    /// Returns an alpha channel of the track 1.
    pub(super) fn with_alpha(id: u32) -> Self {
        let mut track = Self::with_picture(id);
        track.handler = b"auxv";
        track.references = vec![(b"auxl", vec![1])];
        track.entry_boxes.push((b"auxi", b"\0\0\0\0urn:mpeg:hevc:2015:auxid:1\0".to_vec()));
        track
    }

    pub(super) fn picture(&self) -> Vec<u8> {
        self.chunks[0][0].clone()
    }

    /// Writes the track, whose first chunk begins at an offset in the file.
    pub(super) fn write(&self, mut offset: usize) -> Vec<u8> {
        let mut header = vec![u8::from(self.has_wide_times), 0, 0, u8::from(self.is_enabled)];
        let time_bytes = if self.has_wide_times { 8 } else { 4 };
        header.extend(vec![9; 2 * time_bytes]);
        header.extend(self.id.to_be_bytes());
        header.extend(vec![9; 4 + time_bytes + 16]);
        let [a, b, c, d] = self.matrix.map(|number| number << 16);
        header.extend([a, b, 0, c, d, 0, 0, 0, 1 << 30, 64 << 16, 64 << 16].map(i32::to_be_bytes).concat());

        let mut entry = vec![0; 24];
        entry.extend([self.size.0.to_be_bytes(), self.size.1.to_be_bytes()].concat());
        entry.extend([0; 50]);
        for (kind, content) in &self.entry_boxes {
            entry.extend(write_box(kind, content));
        }
        // QuickTime ends a sample entry with zeros.
        entry.extend([0; 4]);
        let entry = write_box(self.entry_kind, &entry);

        let (mut runs, mut sizes, mut offsets) = (Vec::new(), Vec::new(), Vec::new());
        for (index, chunk) in self.chunks.iter().enumerate() {
            runs.extend([length32(index + 1), length32(chunk.len()), length32(1)].concat());
            let narrow = length32(offset);
            offsets.extend(if self.has_wide_offsets {
                [&[0; 4], &narrow[..]].concat()
            } else {
                narrow.to_vec()
            });
            for sample in chunk {
                sizes.extend(length32(sample.len()));
                offset += sample.len();
            }
        }
        let sample_count = self.chunks.iter().map(Vec::len).sum();
        let common_size = if self.has_common_size { self.picture().len() } else { 0 };
        if self.has_common_size {
            sizes.clear();
        }
        let count = length32(self.chunks.len());
        let mut tables = vec![
            write_box(b"stsd", &[&[0; 4], &length32(1)[..], &entry].concat()),
            write_box(b"stsc", &[&[0; 4], &count[..], &runs].concat()),
            write_box(
                b"stsz",
                &[&[0; 4], &length32(common_size)[..], &length32(sample_count), &sizes].concat(),
            ),
            write_box(
                if self.has_wide_offsets { b"co64" } else { b"stco" },
                &[&[0; 4], &count[..], &offsets].concat(),
            ),
        ];
        if let Some(samples) = &self.sync_samples {
            let numbers: Vec<u8> = samples.iter().flat_map(|number| number.to_be_bytes()).collect();
            tables.push(write_box(b"stss", &[&[0; 4], &length32(samples.len())[..], &numbers].concat()));
        }
        let handler = [&[0; 8], &self.handler[..], &[0; 13]].concat();
        let media = [write_box(b"hdlr", &handler), write_box(b"minf", &write_box(b"stbl", &tables.concat()))];
        let references: Vec<u8> = self
            .references
            .iter()
            .flat_map(|(kind, ids)| {
                write_box(kind, &ids.iter().flat_map(|id| id.to_be_bytes()).collect::<Vec<_>>())
            })
            .collect();
        let boxes = [
            write_box(b"tkhd", &header),
            write_box(b"tref", &references),
            write_box(b"mdia", &media.concat()),
        ];
        write_box(b"trak", &boxes.concat())
    }
}

impl TestSequence {
    pub(super) fn with_picture() -> Self {
        Self { tracks: vec![TestTrack::with_picture(1)] }
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut data = Vec::new();
        let mut movie = write_box(b"mvhd", &[0; 100]);
        for track in &self.tracks {
            movie.extend(track.write(DATA_OFFSET + data.len()));
            data.extend(track.chunks.concat().concat());
        }
        let brands = write_box(b"ftyp", b"hevc\0\0\0\0msf1hevc");
        [brands, write_box(b"mdat", &data), write_box(b"moov", &movie)].concat()
    }
}

/// Returns a file that uses most features of sequences.
pub(super) fn sequence_with_alpha() -> Vec<u8> {
    let mut file = TestSequence::with_picture();
    let track = &mut file.tracks[0];
    track.chunks.insert(0, vec![vec![0; 9]; 2]);
    track.sync_samples = Some(vec![3]);
    track.matrix = [0, -1, -1, 0];
    track.references.push((b"prem", vec![2]));
    file.tracks.push(TestTrack { has_wide_offsets: true, has_wide_times: true, ..TestTrack::with_alpha(2) });
    file.write()
}
