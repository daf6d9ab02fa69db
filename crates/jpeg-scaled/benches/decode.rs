//! Measures how long jpeg-scaled and other decoders take to decode a photo and to resize it to a shorter side
//! of 256 pixels.
//!
//! Run `cargo bench -p jpeg-scaled`, and add `--features compare` for libjpeg-turbo.
//!
//! jpeg-scaled decodes at the smallest scale at which both sides have at least twice as many pixels as the
//! shorter side of the resized photo. zune-jpeg can only decode at full size. Every decoder reuses its
//! memory. All decoders run once per round, so that other work on the machine affects all of them alike. The
//! minimum of the rounds shows the speed of the code, and the median also shows the effect of other work.
//! Only the ratios are comparable between machines.
#![expect(clippy::unwrap_used, reason = "a failure ends the benchmark")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::{
    fs,
    hint::black_box,
    io::Cursor,
    path::Path,
    time::{Duration, Instant},
};

use fast_image_resize::{
    FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{Image, ImageRef},
};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use jpeg_scaled::{JpegHeader, Scale};
use zune_jpeg::JpegDecoder;

/// Number of times that every decoder decodes every photo.
const ROUND_COUNT: usize = 25;

/// Shorter side of a resized photo in pixels.
const TARGET_SIDE: u32 = 256;

/// Maximum change that each of two random numbers makes to a value. Both together are the noise. Without
/// noise, the file of an enlarged photo would be unrealistically small.
const MAX_NOISE_TERM: u32 = 11;

/// Enlarges a sample photo to `width` × `height` pixels, adds noise and encodes it with the settings of a
/// camera.
fn encode_photo(width: u16, height: u16) -> Vec<u8> {
    let sample_path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/chelsea.jpg");
    let mut decoder = JpegDecoder::new(Cursor::new(fs::read(sample_path).unwrap()));
    let pixels = decoder.decode().unwrap();
    let info = decoder.info().unwrap();
    let source = ImageRef::new(info.width.into(), info.height.into(), &pixels, PixelType::U8x3).unwrap();
    let mut photo = Image::new(width.into(), height.into(), PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
    Resizer::new().resize(&source, &mut photo, &options).unwrap();
    let mut random = 1u32;
    for value in photo.buffer_mut() {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise =
            (random >> 16) % (2 * MAX_NOISE_TERM + 1) + (random >> 8 & 0xFF) % (2 * MAX_NOISE_TERM + 1);
        let noisy = (u32::from(*value) + noise).saturating_sub(2 * MAX_NOISE_TERM);
        *value = u8::try_from(noisy).unwrap_or(u8::MAX);
    }
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 85);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode(photo.buffer(), width, height, ColorType::Rgb).unwrap();
    file
}

/// Returns the smallest scale at which both sides have at least `2 * TARGET_SIDE` pixels.
fn choose_scale(file: &[u8]) -> Scale {
    let JpegHeader { width, height, .. } = JpegHeader::read(file).unwrap();
    Scale::smallest_at_least((width, height), (2 * TARGET_SIDE, 2 * TARGET_SIDE))
}

/// A decoder to measure, which keeps its memory between files.
trait Decoder {
    fn name(&self) -> &'static str;

    /// Decodes a file to width, height and pixels.
    fn decode(&mut self, file: &[u8]) -> (u32, u32, &[u8]);
}

#[derive(Default)]
struct JpegScaled(jpeg_scaled::Decoder);

impl Decoder for JpegScaled {
    fn name(&self) -> &'static str {
        "jpeg-scaled"
    }

    fn decode(&mut self, file: &[u8]) -> (u32, u32, &[u8]) {
        let picture = self.0.decode(file, choose_scale(file)).unwrap();
        (picture.width, picture.height, picture.pixels)
    }
}

#[derive(Default)]
struct ZuneJpeg(Vec<u8>);

impl Decoder for ZuneJpeg {
    fn name(&self) -> &'static str {
        "zune-jpeg, at full size"
    }

    fn decode(&mut self, file: &[u8]) -> (u32, u32, &[u8]) {
        let mut decoder = JpegDecoder::new(Cursor::new(file));
        decoder.decode_headers().unwrap();
        self.0.resize(decoder.output_buffer_size().unwrap(), 0);
        decoder.decode_into(&mut self.0).unwrap();
        let info = decoder.info().unwrap();
        (info.width.into(), info.height.into(), &self.0)
    }
}

#[cfg(feature = "compare")]
struct LibjpegTurbo {
    decompressor: turbojpeg::Decompressor,
    pixels: Vec<u8>,
    /// True to decode at the smallest sufficient scale, false to decode at full size.
    is_scaled: bool,
}

#[cfg(feature = "compare")]
impl LibjpegTurbo {
    fn new(is_scaled: bool) -> Self {
        Self { decompressor: turbojpeg::Decompressor::new().unwrap(), pixels: Vec::new(), is_scaled }
    }
}

#[cfg(feature = "compare")]
impl Decoder for LibjpegTurbo {
    fn name(&self) -> &'static str {
        if self.is_scaled { "libjpeg-turbo" } else { "libjpeg-turbo, at full size" }
    }

    fn decode(&mut self, file: &[u8]) -> (u32, u32, &[u8]) {
        let denominator = if self.is_scaled { choose_scale(file).denominator() as usize } else { 1 };
        let factor = turbojpeg::ScalingFactor::new(1, denominator);
        self.decompressor.set_scaling_factor(factor).unwrap();
        let header = self.decompressor.read_header(file).unwrap().scaled(factor);
        let (width, height, pitch) = (header.width, header.height, 3 * header.width);
        self.pixels.resize(pitch * height, 0);
        let format = turbojpeg::PixelFormat::RGB;
        let output = turbojpeg::Image { pixels: &mut self.pixels[..], width, pitch, height, format };
        self.decompressor.decompress(file, output).unwrap();
        (u32::try_from(width).unwrap(), u32::try_from(height).unwrap(), &self.pixels)
    }
}

fn all_decoders() -> Vec<Box<dyn Decoder>> {
    vec![
        Box::new(JpegScaled::default()),
        Box::new(ZuneJpeg::default()),
        #[cfg(feature = "compare")]
        Box::new(LibjpegTurbo::new(true)),
        #[cfg(feature = "compare")]
        Box::new(LibjpegTurbo::new(false)),
    ]
}

/// The durations that a decoder takes, one per round.
#[derive(Default)]
struct Durations {
    decode: Vec<Duration>,
    decode_and_resize: Vec<Duration>,
}

/// Returns the minimum and the median in milliseconds.
fn min_and_median(durations: &[Duration]) -> (f64, f64) {
    let mut sorted: Vec<f64> = durations.iter().map(|duration| 1e3 * duration.as_secs_f64()).collect();
    sorted.sort_by(f64::total_cmp);
    (sorted[0], sorted[sorted.len() / 2])
}

/// Measures all decoders with one file and prints a table of their durations.
fn measure(name: &str, file: &[u8], round_count: usize) {
    let mut decoders = all_decoders();
    let mut durations: Vec<Durations> = decoders.iter().map(|_| Durations::default()).collect();
    let mut resizer = Resizer::new();
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    for _ in 0..round_count {
        for (decoder, durations) in decoders.iter_mut().zip(&mut durations) {
            let start = Instant::now();
            let (width, height, pixels) = decoder.decode(file);
            durations.decode.push(start.elapsed());
            let longer_side = TARGET_SIDE * width.max(height) / width.min(height);
            let (small_width, small_height) =
                if width < height { (TARGET_SIDE, longer_side) } else { (longer_side, TARGET_SIDE) };
            let source = ImageRef::new(width, height, pixels, PixelType::U8x3).unwrap();
            let mut small = Image::new(small_width, small_height, PixelType::U8x3);
            resizer.resize(&source, &mut small, &options).unwrap();
            durations.decode_and_resize.push(start.elapsed());
            black_box(small);
        }
    }

    let (jpeg_scaled_total, _) = min_and_median(&durations[0].decode_and_resize);
    println!("\n## {name}, {} kB, at 1/{}\n", file.len() / 1000, choose_scale(file).denominator());
    println!(
        "| | decode: min, ms | median, ms | with resize: min, ms | median, ms | relative to jpeg-scaled |"
    );
    println!("|---|--:|--:|--:|--:|--:|");
    for (decoder, durations) in decoders.iter().zip(&durations) {
        let (decode, decode_median) = min_and_median(&durations.decode);
        let (total, total_median) = min_and_median(&durations.decode_and_resize);
        println!(
            "| {} | {decode:.2} | {decode_median:.2} | {total:.2} | {total_median:.2} | {:.2} |",
            decoder.name(),
            total / jpeg_scaled_total
        );
    }
}

fn main() {
    // `cargo bench` passes this flag. `cargo test --benches` does not, and one round suffices for it.
    let round_count = if std::env::args().any(|argument| argument == "--bench") { ROUND_COUNT } else { 1 };
    for (name, width, height) in [("12 MP", 4000, 3000), ("2 MP", 1600, 1200), ("0.3 MP", 640, 480)] {
        measure(name, &encode_photo(width, height), round_count);
    }
}
