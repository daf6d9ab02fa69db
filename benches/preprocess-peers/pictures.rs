//! The pictures that everybody gets, made anew in each run, always the same.
//!
//! They are put together from the photos in `samples/`, at about their own size and mirrored so that they
//! join, and have noise as a sensor has it: without, they would be too easy to decode.

use std::{fs, path::Path};

use image::{
    ExtendedColorType, ImageEncoder, ImageReader, RgbImage,
    codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder},
    imageops::FilterType,
};
use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};

use crate::{jpeg::Making, ours, reference::Reference, skipped, tools::python};

pub(crate) const JPEG_LARGE: &str = "JPEG 12 MP";
pub(crate) const JPEG_MIDDLE: &str = "JPEG 2 MP";
pub(crate) const JPEG_SMALL: &str = "JPEG 0.3 MP";
pub(crate) const PNG_MIDDLE: &str = "PNG 2 MP";
/// The same as libpng writes it: filters and matches are others, and so is what reading them takes.
pub(crate) const PNG_OF_LIBPNG: &str = "PNG 2 MP, libpng's";
const PROGRESSIVE_LARGE: &str = "progressive JPEG 12 MP";
const WEBP_MIDDLE: &str = "WebP 2 MP";

/// Quality of the JPEGs, as phones and web sites use it; their colour is 4:2:0.
const QUALITY: u8 = 85;
/// Photos in a row and in a column of the large, the middle and the small picture.
const TILES: [u32; 3] = [8, 3, 1];

/// A file that is made smaller.
pub(crate) struct Picture {
    /// As the tables call it, after its full size.
    pub(crate) name: &'static str,
    /// Its name in the folder of all of them.
    pub(crate) file: &'static str,
    /// Width and height in pixels.
    pub(crate) size: (u32, u32),
    /// Length of the file.
    pub(crate) bytes: usize,
    /// What it should become.
    pub(crate) reference: Reference,
    /// And how that is to be encoded: as this project does it.
    pub(crate) making: Making,
}

/// Writes all pictures into `folder`; `sizes` are those of the large, the middle and the small ones.
pub(crate) fn make(folder: &Path, sizes: [(u32, u32); 3], notes: &mut Vec<String>) -> Vec<Picture> {
    let [large, middle, small] = std::array::from_fn(|at| scene(sizes[at], TILES[at]));
    let write = |file, bytes| fs::write(folder.join(file), bytes).unwrap();
    write("large.jpg", jpeg(&large));
    write("middle.jpg", jpeg(&middle));
    write("small.jpg", jpeg(&small));
    write("middle.png", png(&middle));

    let mut pictures = vec![
        picture(folder, JPEG_LARGE, "large.jpg"),
        picture(folder, JPEG_MIDDLE, "middle.jpg"),
        picture(folder, JPEG_SMALL, "small.jpg"),
        picture(folder, PNG_MIDDLE, "middle.png"),
    ];
    for (name, from, to) in [
        (PNG_OF_LIBPNG, "middle.png", "middle-libpng.png"),
        (PROGRESSIVE_LARGE, "large.jpg", "large-progressive.jpg"),
        (WEBP_MIDDLE, "middle.png", "middle.webp"),
    ] {
        if convert(folder, from, to) {
            pictures.push(picture(folder, name, to));
        } else {
            skipped(notes, &format!("{name}: Pillow makes it, which benches/preprocess_peers/install gets"));
        }
    }
    pictures
}

/// Lets Pillow write the picture `from` as `to`; false if it was not installed.
fn convert(folder: &Path, from: &str, to: &str) -> bool {
    let Some(mut convert) = python("convert.py") else { return false };
    let status = convert.args([from, to]).current_dir(folder).status().unwrap();
    assert!(status.success(), "convert.py {from} {to}: {status}");
    true
}

fn picture(folder: &Path, name: &'static str, file: &'static str) -> Picture {
    let bytes = fs::read(folder.join(file)).unwrap();
    let processed = preprocess::image::process(&bytes, &ours::recipe()).unwrap();
    // Not by the decoder of either build, if it can be helped.
    let pixels = if convert(folder, file, "whole.bmp") { "whole.bmp" } else { file };
    let whole = ImageReader::open(folder.join(pixels)).unwrap().decode().unwrap().into_rgb8();
    Picture {
        name,
        file,
        size: whole.dimensions(),
        bytes: bytes.len(),
        reference: Reference::of(&whole, (processed.width, processed.height)),
        making: Making::of(&processed.jpeg),
    }
}

/// What the pictures show.
fn scene((width, height): (u32, u32), tiles: u32) -> RgbImage {
    let (tile_width, tile_height) = (width / tiles, height / tiles);
    let tiles = ["coffee.jpg", "rocket.jpg", "chelsea.jpg"].map(|sample| {
        let photo = image::open(crate::repository().join("samples").join(sample)).unwrap();
        photo.resize_exact(tile_width, tile_height, FilterType::Lanczos3).into_rgb8()
    });
    let mut noise = Noise(1);
    RgbImage::from_fn(width, height, |x, y| {
        let (column, row) = (x / tile_width, y / tile_height);
        let tile = &tiles[((column + row) % 3) as usize];
        let mut pixel = *tile.get_pixel(mirrored(x, tile_width), mirrored(y, tile_height));
        let noise = noise.next();
        pixel.0 = pixel.0.map(|value| value.saturating_add_signed(noise));
        pixel
    })
}

/// Where `at` is in its tile of `length`, of which every second one is mirrored.
fn mirrored(at: u32, length: u32) -> u32 {
    let within = at % length;
    if (at / length).is_multiple_of(2) { within } else { length - 1 - within }
}

/// Random numbers (xorshift64) of about the bell's shape.
struct Noise(u64);

impl Noise {
    /// Half of the values are between -4 and 4.
    fn next(&mut self) -> i8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let [one, other, ..] = self.0.to_le_bytes();
        let sum = i16::from(one) + i16::from(other) - 255;
        i8::try_from(sum / 20).unwrap()
    }
}

fn jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut jpeg = Vec::new();
    let mut encoder = Encoder::new(&mut jpeg, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    let [width, height] = [picture.width(), picture.height()].map(|side| side.try_into().unwrap());
    encoder.encode(picture.as_raw(), width, height, ColorType::Rgb).unwrap();
    jpeg
}

fn png(picture: &RgbImage) -> Vec<u8> {
    let mut png = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut png, CompressionType::Level(6), PngFilter::Adaptive);
    let (width, height) = picture.dimensions();
    encoder.write_image(picture.as_raw(), width, height, ExtendedColorType::Rgb8).unwrap();
    png
}
