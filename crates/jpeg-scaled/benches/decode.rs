//! A photo to a shorter side of 256 pixels: `cargo bench -p jpeg-scaled`, and with
//! `--features compare` beside libjpeg-turbo.
//!
//! Decoded at the smallest scale that leaves twice the size, or in full by zune-jpeg, and resized. All in
//! rounds, so that a disturbance meets everything alike, with memory that is used again. The least of all
//! rounds says what the code can do; the median says what the machine let it do. Only the ratios mean
//! anything on another machine.
#![expect(clippy::unwrap_used, reason = "a bench that fails ends the run")]
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
use jpeg_scaled::{Header, Scale, Workspace};
use zune_jpeg::JpegDecoder;

/// Rounds of the whole measurement.
const ROUNDS: usize = 25;

/// The shorter side that a photo ends with, in pixels.
const TARGET: u32 = 256;

/// How far noise may move a value of the photo: files of enlarged photos are too small without.
const NOISE: u32 = 11;

/// A photo of the repository, enlarged to `width` × `height`, with noise, as a camera would store it.
fn photo(width: u16, height: u16) -> Vec<u8> {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/chelsea.jpg");
    let mut decoder = JpegDecoder::new(Cursor::new(fs::read(sample).unwrap()));
    let pixels = decoder.decode().unwrap();
    let info = decoder.info().unwrap();
    let source = ImageRef::new(info.width.into(), info.height.into(), &pixels, PixelType::U8x3).unwrap();
    let mut photo = Image::new(width.into(), height.into(), PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
    Resizer::new().resize(&source, &mut photo, &options).unwrap();
    let mut random = 1u32;
    for value in photo.buffer_mut() {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (random >> 16) % (2 * NOISE + 1) + (random >> 8 & 0xFF) % (2 * NOISE + 1);
        let noisy = (u32::from(*value) + noise).saturating_sub(2 * NOISE);
        *value = u8::try_from(noisy).unwrap_or(u8::MAX);
    }
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 85);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode(photo.buffer(), width, height, ColorType::Rgb).unwrap();
    file
}

/// The smallest scale that leaves twice the target.
fn scale(file: &[u8]) -> Scale {
    let Header { width, height, .. } = Header::read(file).unwrap();
    Scale::smallest_at_least((width, height), (2 * TARGET, 2 * TARGET))
}

/// One of those that are compared, with memory of its own.
trait Decoder {
    fn name(&self) -> &'static str;

    /// Width, height and pixels.
    fn decode(&mut self, file: &[u8]) -> (u32, u32, &[u8]);
}

#[derive(Default)]
struct Scaled(Workspace);

impl Decoder for Scaled {
    fn name(&self) -> &'static str {
        "jpeg-scaled"
    }

    fn decode(&mut self, file: &[u8]) -> (u32, u32, &[u8]) {
        let picture = self.0.decode(file, scale(file)).unwrap();
        (picture.width, picture.height, picture.pixels)
    }
}

#[derive(Default)]
struct Zune(Vec<u8>);

impl Decoder for Zune {
    fn name(&self) -> &'static str {
        "zune-jpeg, in full"
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
struct Turbo {
    decompressor: turbojpeg::Decompressor,
    pixels: Vec<u8>,
    scaled: bool,
}

#[cfg(feature = "compare")]
impl Turbo {
    fn new(scaled: bool) -> Self {
        Self { decompressor: turbojpeg::Decompressor::new().unwrap(), pixels: Vec::new(), scaled }
    }
}

#[cfg(feature = "compare")]
impl Decoder for Turbo {
    fn name(&self) -> &'static str {
        if self.scaled { "libjpeg-turbo" } else { "libjpeg-turbo, in full" }
    }

    fn decode(&mut self, file: &[u8]) -> (u32, u32, &[u8]) {
        let denominator = if self.scaled { scale(file).denominator() as usize } else { 1 };
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

fn decoders() -> Vec<Box<dyn Decoder>> {
    vec![
        Box::new(Scaled::default()),
        Box::new(Zune::default()),
        #[cfg(feature = "compare")]
        Box::new(Turbo::new(true)),
        #[cfg(feature = "compare")]
        Box::new(Turbo::new(false)),
    ]
}

/// The durations of a decoder, one a round.
#[derive(Default)]
struct Durations {
    decode: Vec<Duration>,
    both: Vec<Duration>,
}

/// Least and median, in milliseconds.
fn figures(durations: &[Duration]) -> (f64, f64) {
    let mut sorted: Vec<f64> = durations.iter().map(|duration| 1e3 * duration.as_secs_f64()).collect();
    sorted.sort_by(f64::total_cmp);
    (sorted[0], sorted[sorted.len() / 2])
}

/// Measures one file and prints its table.
fn measure(name: &str, file: &[u8], rounds: usize) {
    let mut decoders = decoders();
    let mut durations: Vec<Durations> = decoders.iter().map(|_| Durations::default()).collect();
    let mut resizer = Resizer::new();
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    for _ in 0..rounds {
        for (decoder, durations) in decoders.iter_mut().zip(&mut durations) {
            let start = Instant::now();
            let (width, height, pixels) = decoder.decode(file);
            durations.decode.push(start.elapsed());
            let longer = TARGET * width.max(height) / width.min(height);
            let (to_width, to_height) = if width < height { (TARGET, longer) } else { (longer, TARGET) };
            let source = ImageRef::new(width, height, pixels, PixelType::U8x3).unwrap();
            let mut small = Image::new(to_width, to_height, PixelType::U8x3);
            resizer.resize(&source, &mut small, &options).unwrap();
            durations.both.push(start.elapsed());
            black_box(small);
        }
    }

    let (own, _) = figures(&durations[0].both);
    println!("\n## {name}, {} kB, at 1/{}\n", file.len() / 1000, scale(file).denominator());
    println!("| | decode: least, ms | median | and resize: least, ms | median | times jpeg-scaled |");
    println!("|---|--:|--:|--:|--:|--:|");
    for (decoder, durations) in decoders.iter().zip(&durations) {
        let (decode, decode_median) = figures(&durations.decode);
        let (both, both_median) = figures(&durations.both);
        println!(
            "| {} | {decode:.2} | {decode_median:.2} | {both:.2} | {both_median:.2} | {:.2} |",
            decoder.name(),
            both / own
        );
    }
}

fn main() {
    // `cargo test` leaves this flag out and only wants to see it run.
    let rounds = if std::env::args().any(|argument| argument == "--bench") { ROUNDS } else { 1 };
    for (name, width, height) in [("12 MP", 4000, 3000), ("2 MP", 1600, 1200), ("0.3 MP", 640, 480)] {
        measure(name, &photo(width, height), rounds);
    }
}
