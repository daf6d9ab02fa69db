//! The AV1 stream of an item: its configuration, its OBUs and the sizes in its sequence headers.

mod obus;
mod sequence_header;

use re_rav1d::dav1d::{self, Decoder, PixelLayout, PlanarImageComponent, Plane, Settings};

use self::{
    obus::{ObuKind, PictureObus},
    sequence_header::SequenceHeader,
};
use crate::{
    boxes::Reader,
    coding::MAX_SIDE,
    error::Error,
    item_data::ItemData,
    samples::{Matrix, Planes},
};

/// Maximum number of frames of an item. A picture has one frame per layer, and AV1 allows four layers.
const MAX_FRAMES: u32 = 16;

/// The properties of a coded picture according to its sequence headers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CodedPicture {
    /// Number of pixels of a frame, which is the maximum of all sequence headers.
    frame_pixels: u64,
    /// Number of frames up to the shown one. Each is decoded.
    frame_count: u32,
    /// Width and height of the pixels that are shown, according to the last sequence header.
    pub(crate) shown_size: (u32, u32),
    pub(crate) is_grey: bool,
    /// Number of samples per pixel, times two. The maximum of all sequence headers.
    half_samples_per_pixel: u64,
    /// The largest width and height that a frame header can state, each the maximum of all sequence headers.
    max_sides: (u32, u32),
    /// True if samples have more than 8 bits, according to any sequence header.
    has_wide_samples: bool,
    /// True if superblocks have 64×64 pixels and not 128×128, according to any sequence header.
    has_small_superblocks: bool,
    /// True if the decoder can add film grain, according to any sequence header.
    has_film_grain: bool,
    /// True if the decoder can widen the picture, according to any sequence header.
    has_superres: bool,
    /// Primaries and transfer function, which are 2 if unspecified.
    pub(crate) colours: Option<(u16, u16)>,
    matrix: Option<Matrix>,
}

impl CodedPicture {
    /// Returns the number of pixels that are coded in all frames together.
    pub(crate) fn pixels(&self) -> u64 {
        self.frame_pixels.saturating_mul(self.frame_count.max(1).into())
    }

    /// Adds the sequence headers and the frames among the data of an item.
    pub(crate) fn add_headers_in(&mut self, data: &ItemData<'_>) -> Result<(), Error> {
        let mut obus = PictureObus::new(data.cursor());
        while let Some(obu) = obus.next_obu()? {
            match obu.kind {
                ObuKind::SequenceHeader(header) => self.add_sequence_header(&header)?,
                ObuKind::Frame => self.frame_count += 1,
                ObuKind::Other => {}
            }
            if self.frame_count > MAX_FRAMES {
                return Err(Error::unsupported(format!("a picture of more than {MAX_FRAMES} frames")));
            }
            obus.cursor().skip(obu.header.length)?;
        }
        Ok(())
    }

    /// Returns the maximum number of bytes that decoding needs.
    ///
    /// Counts the planes of every frame, because hidden frames are kept as references, with their motion vectors and
    /// segments. Counts also the tables of the frame that is decoded, the states of its tiles, and two copies of the
    /// stream: one for the decoder, and one of an OBU that lies in several extents.
    pub(crate) fn decoder_bytes(&self, stream_bytes: u64) -> u64 {
        /// Frames that the decoder keeps: eight references, the current one, and two that wait for being shown.
        const MAX_KEPT_FRAMES: u64 = 11;
        /// The sides of planes and tables are rounded up to a multiple of this number plus one.
        const PADDING: u64 = 127;
        /// A row of a plane has so many bytes more if their number is a multiple of 1024.
        const ROW_PADDING_BYTES: u64 = 64;
        /// Motion vectors and segments.
        const PIXELS_PER_KEPT_TABLE_BYTE: u64 = 4;
        /// Levels and masks of the filters, and their rows between superblocks.
        const TABLE_BYTES_PER_PIXEL: u64 = 1;
        /// Rows of pixels and of motion vectors.
        const TABLE_BYTES_PER_COLUMN: u64 = 256;
        const MAX_TILES: u64 = 64 * 64;
        /// Mainly the probabilities of the symbols. Measured: 15.1 KB.
        const BYTES_PER_TILE: u64 = 16 << 10;
        /// Probabilities of all references and the buffers of a thread. Measured: 0.4 MB for one frame.
        const FIXED_BYTES: u64 = 2 << 20;
        let (max_width, max_height) = (u64::from(self.max_sides.0), u64::from(self.max_sides.1));
        let pixels = self.frame_pixels + PADDING * (max_width + max_height + PADDING);
        let bytes_per_sample = if self.has_wide_samples { 2 } else { 1 };
        let picture_bytes = pixels * self.half_samples_per_pixel / 2 * bytes_per_sample
            + 3 * ROW_PADDING_BYTES * (max_height + PADDING);
        let kept_frames = u64::from(self.frame_count.max(1)).min(MAX_KEPT_FRAMES);
        let copies = u64::from(self.has_film_grain) + u64::from(self.has_superres);
        let superblock_pixels: u64 = if self.has_small_superblocks { 64 * 64 } else { 128 * 128 };
        [
            (kept_frames + copies) * picture_bytes,
            kept_frames * pixels / PIXELS_PER_KEPT_TABLE_BYTE,
            pixels * TABLE_BYTES_PER_PIXEL,
            (max_width + PADDING) * TABLE_BYTES_PER_COLUMN,
            (pixels / superblock_pixels).min(MAX_TILES) * BYTES_PER_TILE,
            stream_bytes.saturating_mul(2),
            FIXED_BYTES,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    fn add_sequence_header(&mut self, header: &SequenceHeader) -> Result<(), Error> {
        let (width, height) = header.max_size;
        if width.max(height) > MAX_SIDE {
            return Err(Error::unsupported(format!("a coded picture with a side above {MAX_SIDE} pixels")));
        }
        *self = Self {
            frame_pixels: self.frame_pixels.max(u64::from(width) * u64::from(height)),
            frame_count: self.frame_count,
            shown_size: header.max_size,
            is_grey: header.half_samples_per_pixel == 2,
            half_samples_per_pixel: self.half_samples_per_pixel.max(header.half_samples_per_pixel),
            max_sides: (self.max_sides.0.max(header.max_sides.0), self.max_sides.1.max(header.max_sides.1)),
            has_wide_samples: self.has_wide_samples || header.has_wide_samples,
            has_small_superblocks: self.has_small_superblocks || header.has_small_superblocks,
            has_film_grain: self.has_film_grain || header.has_film_grain,
            has_superres: self.has_superres || header.has_superres,
            colours: header.colours.or(self.colours),
            matrix: Some(header.matrix),
        };
        Ok(())
    }
}

/// The configuration of the decoder.
#[derive(Clone, Copy)]
pub(crate) struct Config {
    /// Number of the set of layers to decode.
    pub(crate) operating_point: u8,
}

impl Config {
    /// Reads the content of a box `av1C`.
    ///
    /// Ignores the OBUs in the box, which the coded data repeats. The decoder does not read them, and libavif ignores
    /// them, too.
    pub(crate) fn read(content: &[u8]) -> Result<Self, Error> {
        /// Length in bytes of the fields in front of the OBUs.
        const FIELD_BYTES: usize = 4;
        Reader(content).bytes(FIELD_BYTES)?;
        Ok(Self { operating_point: 0 })
    }

    /// Decodes the picture of the highest layer.
    ///
    /// The decoder runs behind an interface for C. A panic inside would therefore abort the process, and no caller
    /// could catch it.
    ///
    /// re_rav1d 0.1.3 leaks 48 bytes for each picture.
    pub(crate) fn decode(self, data: &ItemData<'_>, picture: &CodedPicture) -> Result<Picture, Error> {
        let mut settings = Settings::new();
        settings.set_n_threads(1);
        settings.set_max_frame_delay(1);
        settings.set_all_layers(false);
        settings.set_operating_point(self.operating_point.into());
        // Frames of another size than the sequence header states must not be larger.
        settings.set_frame_size_limit(u32::try_from(picture.frame_pixels).unwrap_or(u32::MAX));
        let mut decoder = Decoder::with_settings(&settings)?;
        let mut sent = decoder.send_data(decoded_obus(data)?, None, None, None);
        loop {
            let is_all_sent = match sent {
                Ok(()) => true,
                Err(error) if error.is_again() => false,
                Err(error) => return Err(error.into()),
            };
            match decoder.get_picture() {
                Ok(decoded) => return Picture::new(&decoded, picture),
                Err(error) if error.is_again() && !is_all_sent => sent = decoder.send_pending_data(),
                Err(error) if error.is_again() => return Err(Error::Corrupt("a coded picture has no frame")),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Copies the OBUs that a picture consists of.
fn decoded_obus(data: &ItemData<'_>) -> Result<Vec<u8>, Error> {
    let mut stream = Vec::with_capacity(usize::try_from(data.length()).unwrap_or_default());
    let mut obus = PictureObus::new(data.cursor());
    while let Some(obu) = obus.next_obu()? {
        obu.header.write(&mut stream);
        stream.extend_from_slice(&obus.cursor().bytes(obu.header.length)?);
    }
    Ok(stream)
}

/// A decoded picture.
pub(crate) struct Picture {
    /// The planes of the brightness and, unless the picture is grey, of the two chroma samples. Rows are padded.
    planes: Vec<Plane>,
    /// Bytes per row of each plane.
    bytes_per_row: [usize; 3],
    width: u32,
    height: u32,
    bits: u8,
    layout: PixelLayout,
    matrix: Matrix,
}

impl Picture {
    fn new(decoded: &dav1d::Picture, coded: &CodedPicture) -> Result<Self, Error> {
        let layout = decoded.pixel_layout();
        let components = [PlanarImageComponent::Y, PlanarImageComponent::U, PlanarImageComponent::V];
        let plane_count = if layout == PixelLayout::I400 { 1 } else { 3 };
        Ok(Self {
            planes: components[..plane_count].iter().map(|&component| decoded.plane(component)).collect(),
            bytes_per_row: components.map(|component| decoded.stride(component) as usize),
            width: decoded.width(),
            height: decoded.height(),
            bits: u8::try_from(decoded.bit_depth()).unwrap_or_default(),
            layout,
            matrix: coded.matrix.ok_or(Error::Corrupt("a coded picture has no sequence header"))?,
        })
    }

    /// Returns true if samples have two bytes, because they have more than 8 bits.
    pub(crate) fn has_wide_samples(&self) -> bool {
        self.bits > 8
    }

    /// Returns samples of one byte.
    pub(crate) fn narrow_planes(&self) -> Planes<'_, u8> {
        self.planes_of(|bytes| bytes)
    }

    /// Returns samples of two bytes.
    pub(crate) fn wide_planes(&self) -> Planes<'_, [u8; 2]> {
        self.planes_of(|bytes| bytes.as_chunks().0)
    }

    fn planes_of<S>(&self, samples: impl Fn(&[u8]) -> &[S]) -> Planes<'_, S> {
        let mut planes = [&[][..]; 3];
        for (plane, bytes) in planes.iter_mut().zip(&self.planes) {
            *plane = samples(bytes);
        }
        let (halves_width, halves_height) = match self.layout {
            PixelLayout::I400 | PixelLayout::I444 => (false, false),
            PixelLayout::I422 => (true, false),
            PixelLayout::I420 => (true, true),
        };
        let chroma_width = if halves_width { self.width.div_ceil(2) } else { self.width };
        Planes {
            samples: planes,
            strides: self.bytes_per_row.map(|bytes| bytes / size_of::<S>()),
            widths: [self.width, chroma_width, chroma_width].map(|width| width as usize),
            size: (self.width, self.height),
            bits: [self.bits; 2],
            matrix: self.matrix,
            is_grey: self.layout == PixelLayout::I400,
            has_full_range_if_grey: false,
            halves_width,
            halves_height,
        }
    }
}
