//! JPEGs that jpeg-scaled leaves, progressive ones above all, by libjpeg-turbo: scaled down while they decode.

use turbojpeg::{Decompressor, Error, Image, PixelFormat, ScalingFactor};

use super::{Decode, Decoded, Job, Refusal, corrupt, length, scale, working_rows, zune};
use crate::image::{
    Header,
    header::{Coding, jpeg},
    resize::Window,
    scratch::Scratch,
};

pub(super) struct LibjpegTurbo;

/// Size as decoded, and how much smaller that is.
struct Size {
    width: u32,
    height: u32,
    denominator: u32,
}

impl Size {
    fn of(header: &Header, target: (u32, u32)) -> Self {
        let denominator = scale::denominator(header.width, header.height, target);
        let [width, height] = [header.width, header.height].map(|side| side.div_ceil(denominator));
        Self { width, height, denominator }
    }

    fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

impl Decode for LibjpegTurbo {
    fn name(&self) -> &'static str {
        "libjpeg-turbo"
    }

    /// CMYK and more than 8 bits it does not give out as RGB.
    fn takes(&self, header: &Header) -> bool {
        matches!(header.coding, Coding::Jpeg(jpeg) if jpeg.bits == 8 && matches!(jpeg.components, 1 | 3))
    }

    /// The pixels as decoded, the rows in work, the segments, of which it makes copies of copies; and all
    /// coefficients where rows are not ready before the last scan.
    fn bytes(&self, header: &Header, target: (u32, u32)) -> u64 {
        let Coding::Jpeg(jpeg) = header.coding else { return u64::MAX };
        let coefficients = if jpeg.comes_in_several_scans() { 2 * jpeg.samples } else { 0 };
        let pixels = Size::of(header, target).pixels() * if header.is_grey_jpeg() { 1 } else { 3 };
        pixels + coefficients + working_rows(header) + 3 * jpeg.segment_bytes
    }

    /// Refuses what libjpeg-turbo so much as warns of. Most of it zune-jpeg can have; of missing pixels
    /// it would make grey ones.
    fn decode(&self, job: &Job<'_>, scratch: &mut Scratch) -> Result<Decoded, Refusal> {
        let not_mine = |error: Error| Refusal::NotMine(error.into());
        let grey = job.header.is_grey_jpeg();
        let (format, channels) = if grey { (PixelFormat::GRAY, 1) } else { (PixelFormat::RGB, 3) };
        let size = Size::of(job.header, job.target);

        // A new one each time: one that was used decodes a file without tables by those of the picture before.
        let mut decompressor = Decompressor::new().map_err(not_mine)?;
        let factor = ScalingFactor::new(1, length(size.denominator.into()));
        decompressor.set_scaling_factor(factor).map_err(not_mine)?;
        decompressor.set_scan_limit(job.max_scans).map_err(not_mine)?;
        let header = decompressor.read_header(job.bytes).map_err(not_mine)?;
        if (header.width, header.height)
            != (length(job.header.width.into()), length(job.header.height.into()))
        {
            return Err(Refusal::NotMine("it found another size".into()));
        }
        let width = length(size.width.into());
        let image = Image {
            pixels: scratch.pixels(length(size.pixels()) * channels),
            width,
            pitch: width * channels,
            height: length(size.height.into()),
            format,
        };
        decompressor.decompress(job.bytes, image).map_err(|error| match &error {
            Error::TurboJpegError(message) if message.contains("remature end") => corrupt(job, error).into(),
            _ => not_mine(error),
        })?;

        let metadata = jpeg::metadata(job.bytes);
        Ok(Decoded {
            width: size.width,
            height: size.height,
            grey,
            window: Window::scaled(job.header, size.denominator),
            orientation: zune::orientation(metadata.exif),
            profile: metadata.profile,
        })
    }
}
