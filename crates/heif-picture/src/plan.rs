//! The plan for decoding a picture.

use crate::{
    alpha::alpha_channels,
    coding::Picture,
    container::Container,
    error::Error,
    geometry::{Orientation, Rectangle, Transform, Window},
    parts::{Part, Parts, Size},
    samples::{Planes, Rows, Sample},
};

/// The parts of the primary picture of a file, and the cost of decoding them.
pub struct Plan<'a> {
    colours: Parts<'a>,
    alpha: Option<Parts<'a>>,
    /// True if the primary picture has an alpha channel, and not an item that it is derived from.
    is_alpha_of_primary: bool,
    is_premultiplied: bool,
}

/// The colour space of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColourSpace<'a> {
    /// The file does not state the colour space.
    Unspecified,
    /// The colour space is described by an ICC profile.
    Icc(&'a [u8]),
    /// The numbers of the primaries and of the transfer function in ITU-T H.273.
    Cicp {
        /// `ColourPrimaries`.
        primaries: u16,
        /// `TransferCharacteristics`.
        transfer: u16,
    },
}

impl<'a> Plan<'a> {
    /// Finds the parts of the primary picture. Decodes no pixels.
    ///
    /// Takes time in proportion to the length of the file at most, and less than 2 MiB of memory. Parts can share their
    /// properties and their data, but the number of parts, and of properties and units of each, is limited.
    ///
    /// # Errors
    /// Returns [`Error`] when the file is damaged or uses an unsupported feature.
    pub fn read(file: &'a [u8]) -> Result<Self, Error> {
        let container = Container::read(file)?;
        let colours = Parts::find(&container, container.primary, file.len())?;
        let alpha_channels = alpha_channels(&container);
        let alpha_id = alpha_channels.get(&container.primary).copied();
        let alpha = match alpha_id {
            Some(id) => Some(Parts::find(&container, id, file.len())?),
            // libheif stores the alpha channel of a grid as one item per tile.
            None => Parts::find_alpha_of_parts(&container, &colours, &alpha_channels, file.len())?,
        };
        let is_premultiplied = match alpha_id {
            Some(id) => container.is_premultiplied(container.primary, id),
            None => {
                let mut pairs = colours.alpha_of_parts(&alpha_channels).peekable();
                pairs.peek().is_some() && pairs.all(|(part, id)| container.is_premultiplied(part.id, id))
            }
        };
        Ok(Self { colours, alpha, is_alpha_of_primary: alpha_id.is_some(), is_premultiplied })
    }

    /// Returns the width and height in pixels of the decoded pixels.
    pub fn decoded_size(&self) -> (u32, u32) {
        self.colours.decoded_size
    }

    /// Returns the width and height of the picture before the crop and the orientation.
    ///
    /// An AVIF file can state another size than its coded picture has. The decoded pixels are then to be stretched.
    pub fn size(&self) -> (u32, u32) {
        self.colours.size
    }

    /// Returns the part of a picture of [`Self::size`] that is shown, before the orientation is applied.
    pub fn crop(&self) -> Rectangle {
        self.colours.transform.crop
    }

    /// Returns the decoded pixels of [`Self::crop`].
    pub fn window(&self) -> Window {
        Window::new(self.crop(), self.size(), self.decoded_size())
    }

    /// Returns the part of the alpha channel that is shown, and the part of the colours to which it is stretched.
    ///
    /// Colours and alpha channel are cropped separately, as in libheif. An alpha channel without a crop is stretched to
    /// the crop of the colours.
    pub fn alpha_windows(&self) -> Option<(Window, Window)> {
        let alpha = self.alpha.as_ref()?;
        let shown = Window::new(alpha.transform.crop, alpha.size, alpha.decoded_size);
        // An item that the primary item is derived from has no crop, but the primary item can have one.
        let whole = Transform::new(self.size()).crop;
        let crop = if self.is_alpha_of_primary { self.crop() } else { whole };
        Some((shown, Window::new(crop, self.size(), self.decoded_size())))
    }

    /// Returns the orientation that remains to be applied after the crop. An orientation in EXIF must be ignored.
    pub fn orientation(&self) -> Orientation {
        self.colours.transform.orientation
    }

    /// Returns true if the decoded pixels are grey.
    pub fn is_grey(&self) -> bool {
        self.colours.parts.iter().all(|part| part.coded.is_grey())
    }

    /// Returns the width and height of the decoded alpha channel, if the picture has one. They can differ from those of
    /// the decoded colours.
    pub fn alpha_size(&self) -> Option<(u32, u32)> {
        self.alpha.as_ref().map(|alpha| alpha.decoded_size)
    }

    /// Returns true if the colours are multiplied with the alpha channel. If the tiles have alpha channels of their
    /// own, this must be true for each of them.
    pub fn is_premultiplied(&self) -> bool {
        self.is_premultiplied
    }

    /// Returns the colour space of the decoded pixels.
    pub fn colour_space(&self) -> ColourSpace<'a> {
        if let Some(profile) = self.colours.icc_profile {
            return ColourSpace::Icc(profile);
        }
        let coded = self.colours.parts.iter().find_map(|part| part.coded.colours());
        match self.colours.nclx.or(coded) {
            Some((primaries, transfer)) => ColourSpace::Cicp { primaries, transfer },
            None => ColourSpace::Unspecified,
        }
    }

    /// Returns the number of pixels of all parts together, according to their parameter sets. Counts parts that are
    /// not shown, too.
    pub fn coded_pixels(&self) -> u64 {
        self.all_parts().map(|parts| parts.coded_pixels).fold(0, u64::saturating_add)
    }

    /// Returns the maximum number of bytes that decoding needs, besides the caller's buffers.
    pub fn decoder_bytes(&self) -> u64 {
        let parts = self.all_parts().flat_map(|parts| &parts.parts);
        let largest = parts.map(|part| part.decoder_bytes()).max().unwrap_or_default();
        largest.saturating_add(PLAN_BYTES)
    }

    /// Returns the length of the buffer for colours: one byte per grey pixel, or three bytes per RGB pixel.
    pub fn colour_bytes(&self) -> usize {
        byte_count(self.decoded_size(), self.channel_count())
    }

    /// Returns the length of the buffer for the alpha channel: one byte per pixel, or 0 without an alpha channel.
    pub fn alpha_bytes(&self) -> usize {
        self.alpha_size().map_or(0, |size| byte_count(size, 1))
    }

    /// Decodes the picture into `colours`, and its alpha channel into `alpha`, row by row from the top.
    ///
    /// The buffers must have the lengths [`Self::colour_bytes`] and [`Self::alpha_bytes`].
    ///
    /// # Errors
    /// Returns [`Error`] when the coded data is damaged or uses an unsupported feature, or a buffer is too short.
    pub fn decode(&self, colours: &mut [u8], alpha: &mut [u8]) -> Result<(), Error> {
        decode_parts(&self.colours, colours, self.channel_count())?;
        // Parts without an alpha channel are opaque.
        alpha.fill(u8::MAX);
        self.alpha.as_ref().map_or(Ok(()), |parts| decode_parts(parts, alpha, 1))
    }

    fn all_parts(&self) -> impl Iterator<Item = &Parts<'a>> {
        std::iter::once(&self.colours).chain(&self.alpha)
    }

    fn channel_count(&self) -> usize {
        if self.is_grey() { 1 } else { 3 }
    }
}

/// Maximum number of bytes of a plan, which has at most 2,400 parts.
const PLAN_BYTES: u64 = 1 << 20;

/// Returns the length of a picture in memory, saturating at `usize::MAX`.
fn byte_count((width, height): Size, channel_count: usize) -> usize {
    (width as usize).saturating_mul(height as usize).saturating_mul(channel_count)
}

/// Decodes the parts one after the other. Writes one or three bytes per pixel.
fn decode_parts(parts: &Parts<'_>, pixels: &mut [u8], channel_count: usize) -> Result<(), Error> {
    for part in parts.parts.iter().filter(|part| part.position.width > 0 && part.position.height > 0) {
        let width = parts.decoded_size.0;
        match part.decode()? {
            Picture::Hevc(frame) => write_part(part, Planes::from(&frame), pixels, width, channel_count)?,
            #[cfg(feature = "avif")]
            Picture::Av1(picture) if picture.has_wide_samples() => {
                write_part(part, picture.wide_planes(), pixels, width, channel_count)?;
            }
            #[cfg(feature = "avif")]
            Picture::Av1(picture) => {
                write_part(part, picture.narrow_planes(), pixels, width, channel_count)?;
            }
        }
    }
    Ok(())
}

/// Writes a decoded part at its position in a picture of `picture_width` pixels per row.
fn write_part<S: Sample>(
    part: &Part<'_>,
    planes: Planes<'_, S>,
    pixels: &mut [u8],
    picture_width: u32,
    channel_count: usize,
) -> Result<(), Error> {
    let Rectangle { left, top, width, height } = part.position;
    if planes.size != part.decoded_size() {
        return Err(Error::Corrupt("a coded picture has another size than the file states"));
    }
    let is_grey = planes.is_grey;
    if is_grey != part.coded.is_grey() {
        return Err(Error::Corrupt("the parameter sets of a picture contradict each other"));
    }
    let matrix = part.matrix.unwrap_or(planes.matrix);
    let mut rows =
        if channel_count == 1 || is_grey { Rows::grey(planes, matrix) } else { Rows::rgb(planes, matrix)? };
    let rest = pixels.get_mut(byte_count((picture_width, top), channel_count)..).unwrap_or_default();
    let bytes_per_row = byte_count((picture_width, 1), channel_count);
    for (y, row) in rest.chunks_exact_mut(bytes_per_row).take(height as usize).enumerate() {
        let start = byte_count((left, 1), channel_count);
        let row = row.get_mut(start..start + byte_count((width, 1), channel_count));
        let row = row.ok_or(Error::Corrupt("a part lies outside the picture"))?;
        match (channel_count, is_grey) {
            (1, _) => rows.write_grey(y, row),
            (_, false) => rows.write_rgb(y, row),
            // A grey part of a picture that has parts in colour.
            (_, true) => {
                let (levels, _) = row.split_at_mut(width as usize);
                rows.write_grey(y, levels);
                spread_grey(row);
            }
        }
    }
    Ok(())
}

/// Replaces the first third of a row, which contains one byte per pixel, by three equal bytes per pixel.
fn spread_grey(row: &mut [u8]) {
    for index in (0..row.len() / 3).rev() {
        let level = row[index];
        row[3 * index..3 * index + 3].fill(level);
    }
}
