//! Writes TIFFs for the tests.

// Tags of an entry.
pub(crate) const WIDTH: u16 = 256;
pub(crate) const HEIGHT: u16 = 257;
pub(crate) const BITS_PER_SAMPLE: u16 = 258;
pub(crate) const COMPRESSION: u16 = 259;
pub(crate) const PHOTOMETRIC: u16 = 262;
pub(crate) const FILL_ORDER: u16 = 266;
pub(crate) const STRIP_OFFSETS: u16 = 273;
pub(crate) const SAMPLES_PER_PIXEL: u16 = 277;
pub(crate) const ROWS_PER_STRIP: u16 = 278;
pub(crate) const STRIP_BYTE_COUNTS: u16 = 279;
pub(crate) const PLANAR_CONFIGURATION: u16 = 284;
pub(crate) const PREDICTOR: u16 = 317;
pub(crate) const COLOUR_MAP: u16 = 320;
pub(crate) const TILE_WIDTH: u16 = 322;
pub(crate) const TILE_HEIGHT: u16 = 323;
pub(crate) const TILE_OFFSETS: u16 = 324;
pub(crate) const TILE_BYTE_COUNTS: u16 = 325;
pub(crate) const EXTRA_SAMPLES: u16 = 338;
pub(crate) const SAMPLE_FORMAT: u16 = 339;
pub(crate) const CHROMA_SUBSAMPLING: u16 = 530;
pub(crate) const ICC_PROFILE: u16 = 34_675;

/// A TIFF to write.
#[derive(Clone)]
pub(crate) struct Tiff {
    pub(crate) is_big_endian: bool,
    pub(crate) size: (usize, usize),
    pub(crate) photometric: u16,
    pub(crate) bits: u16,
    pub(crate) samples_per_pixel: u16,
    /// Entries besides the usual ones.
    pub(crate) entries: Vec<(u16, Vec<u16>)>,
    /// The strips. If there is a size of tiles, the tiles.
    pub(crate) chunks: Vec<Vec<u8>>,
    pub(crate) tile_size: Option<(usize, usize)>,
}

impl Tiff {
    pub(crate) fn write(&self) -> Vec<u8> {
        const SHORT: u16 = 3;
        const LONG: u16 = 4;
        let short = |value: u16| if self.is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let long = |value: usize| {
            let value = u32::try_from(value).unwrap();
            if self.is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
        };
        let longs = |values: &[usize]| values.iter().flat_map(|&value| long(value)).collect::<Vec<u8>>();
        let shorts = |values: &[u16]| values.iter().flat_map(|&value| short(value)).collect::<Vec<u8>>();
        let mut file = if self.is_big_endian { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
        file.extend([0; 4]);
        let (mut offsets, mut lengths) = (Vec::new(), Vec::new());
        for chunk in &self.chunks {
            offsets.push(file.len());
            lengths.push(chunk.len());
            file.extend(chunk);
        }
        let mut entries = vec![
            (WIDTH, LONG, longs(&[self.size.0])),
            (HEIGHT, LONG, longs(&[self.size.1])),
            (BITS_PER_SAMPLE, SHORT, shorts(&vec![self.bits; self.samples_per_pixel.into()])),
            (PHOTOMETRIC, SHORT, shorts(&[self.photometric])),
            (SAMPLES_PER_PIXEL, SHORT, shorts(&[self.samples_per_pixel])),
        ];
        if let Some((width, height)) = self.tile_size {
            entries.push((TILE_WIDTH, LONG, longs(&[width])));
            entries.push((TILE_HEIGHT, LONG, longs(&[height])));
            entries.push((TILE_OFFSETS, LONG, longs(&offsets)));
            entries.push((TILE_BYTE_COUNTS, LONG, longs(&lengths)));
        } else {
            entries.push((STRIP_OFFSETS, LONG, longs(&offsets)));
            entries.push((STRIP_BYTE_COUNTS, LONG, longs(&lengths)));
        }
        entries.extend(self.entries.iter().map(|(tag, values)| (*tag, SHORT, shorts(values))));
        entries.sort();
        let mut directory = short(u16::try_from(entries.len()).unwrap()).to_vec();
        for (tag, kind, mut values) in entries {
            directory.extend(short(tag));
            directory.extend(short(kind));
            directory.extend(long(values.len() / if kind == SHORT { 2 } else { 4 }));
            if values.len() > 4 {
                directory.extend(long(file.len()));
                file.extend(values);
            } else {
                values.resize(4, 0);
                directory.extend(values);
            }
        }
        directory.extend([0; 4]);
        let directory_offset = long(file.len());
        file[4..8].copy_from_slice(&directory_offset);
        file.extend(directory);
        file
    }

    /// Returns a file with an additional entry.
    pub(crate) fn with(mut self, tag: u16, values: &[u16]) -> Self {
        self.entries.push((tag, values.to_vec()));
        self
    }
}
