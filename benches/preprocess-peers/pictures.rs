//! The pictures that every tool gets, made anew in each run and always the same.
//!
//! They are mirrored tiles of the photos in `samples/`, at about the photos' own size. Noise like a sensor's
//! is added, because smooth pictures would be too easy to decode.

use std::{fs, path::Path};

use bench_harness::{python, repository, skip};
use image::{
    ExtendedColorType, ImageEncoder, ImageReader, Rgb32FImage, RgbImage,
    codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder},
    imageops::{FilterType, resize},
};
use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};

use crate::tools::recipe;

pub(crate) const JPEG_LARGE: &str = "JPEG 12 MP";
pub(crate) const JPEG_MIDDLE: &str = "JPEG 2 MP";
pub(crate) const JPEG_SMALL: &str = "JPEG 0.3 MP";
pub(crate) const PNG_MIDDLE: &str = "PNG 2 MP";
/// The same pixels in libpng's filters and matches, which take another time to decode.
pub(crate) const PNG_OF_LIBPNG: &str = "PNG 2 MP, libpng's";
const PROGRESSIVE_LARGE: &str = "progressive JPEG 12 MP";
const WEBP_MIDDLE: &str = "WebP 2 MP";

/// Quality of the JPEGs, typical of phones and web sites; their colour is 4:2:0.
const QUALITY: u8 = 85;
/// Photos per row and per column of the large, the middle and the small picture.
const TILES: [u32; 3] = [8, 3, 1];

/// A file that the tools scale down.
pub(crate) struct Picture {
    /// Name in the tables.
    pub(crate) name: &'static str,
    /// Name in the folder of the pictures.
    pub(crate) file: &'static str,
    /// Width and height in pixels.
    pub(crate) size: (u32, u32),
    /// Length of the file.
    pub(crate) bytes: usize,
    /// The expected pixels, from 0 to 1 and not rounded: Lanczos3 over all source pixels.
    pub(crate) becomes: Rgb32FImage,
    /// Settings of the JPEG that this project makes, which every tool must use.
    pub(crate) settings: JpegSettings,
}

impl Picture {
    /// Returns the peak signal-to-noise ratio of 8-bit RGB pixels to the expected ones, in dB.
    pub(crate) fn psnr(&self, rgb: &[u8]) -> f64 {
        assert_eq!(rgb.len(), self.becomes.len(), "pixels of a picture of another size");
        let pairs = rgb.iter().zip(self.becomes.as_raw());
        let errors = pairs.map(|(&value, &expected)| f64::from(value) / 255.0 - f64::from(expected));
        -10.0 * (errors.map(|error| error * error).sum::<f64>() / rgb.len() as f64).log10()
    }
}

/// Sampling and quantisation of a JPEG: equal for JPEGs of the same quality and chroma format.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct JpegSettings {
    /// Horizontal (high four bits) and vertical sampling per component.
    sampling: Vec<u8>,
    tables: Vec<u8>,
}

impl JpegSettings {
    pub(crate) fn read(jpeg: &[u8]) -> Self {
        let (mut sampling, mut tables) = (Vec::new(), Vec::new());
        let mut at = 2;
        // Up to the first scan.
        while jpeg[at + 1] != 0xDA {
            let &[0xFF, marker, high, low] = &jpeg[at..at + 4] else { panic!("no segment at {at}") };
            let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
            let segment = &jpeg[at + 4..end];
            match marker {
                0xDB => tables.extend_from_slice(segment),
                // Six bytes of precision, size and component count, then three bytes per component.
                0xC0..=0xC2 => {
                    sampling = segment[6..].chunks_exact(3).map(|component| component[1]).collect()
                }
                _ => {}
            }
            at = end;
        }
        Self { sampling, tables }
    }
}

/// Writes all pictures into `folder`; `sizes` are those of the large, the middle and the small ones.
pub(crate) fn make(folder: &Path, sizes: [(u32, u32); 3], notes: &mut Vec<String>) -> Vec<Picture> {
    let [large, middle, small] = std::array::from_fn(|at| draw_scene(sizes[at], TILES[at]));
    let write = |name, file, bytes| {
        fs::write(folder.join(file), bytes).unwrap();
        describe(folder, name, file)
    };
    let mut pictures = vec![
        write(JPEG_LARGE, "large.jpg", encode_jpeg(&large)),
        write(JPEG_MIDDLE, "middle.jpg", encode_jpeg(&middle)),
        write(JPEG_SMALL, "small.jpg", encode_jpeg(&small)),
        write(PNG_MIDDLE, "middle.png", encode_png(&middle)),
    ];
    for (name, from, to) in [
        (PNG_OF_LIBPNG, "middle.png", "middle-libpng.png"),
        (PROGRESSIVE_LARGE, "large.jpg", "large-progressive.jpg"),
        (WEBP_MIDDLE, "middle.png", "middle.webp"),
    ] {
        if convert(folder, from, to) {
            pictures.push(describe(folder, name, to));
        } else {
            skip(notes, &format!("{name}: Pillow makes it, which benches/preprocess-peers/install installs"));
        }
    }
    pictures
}

/// Converts a picture with Pillow; returns false if Pillow is not installed.
fn convert(folder: &Path, from: &str, to: &str) -> bool {
    let Some(mut convert) = python("preprocess-peers", "convert.py") else { return false };
    let status = convert.args([from, to]).current_dir(folder).status().unwrap();
    assert!(status.success(), "convert.py {from} {to}: {status}");
    true
}

fn describe(folder: &Path, name: &'static str, file: &'static str) -> Picture {
    let bytes = fs::read(folder.join(file)).unwrap();
    let processed = preprocess::image::process(&bytes, &recipe()).unwrap();
    // Decoded by Pillow if possible, and not by a decoder that is measured here.
    let pixels = if convert(folder, file, "whole.bmp") { "whole.bmp" } else { file };
    let whole = ImageReader::open(folder.join(pixels)).unwrap().decode().unwrap();
    Picture {
        name,
        file,
        size: (whole.width(), whole.height()),
        bytes: bytes.len(),
        becomes: resize(&whole.into_rgb32f(), processed.width, processed.height, FilterType::Lanczos3),
        settings: JpegSettings::read(&processed.jpeg),
    }
}

fn draw_scene((width, height): (u32, u32), tiles: u32) -> RgbImage {
    let (tile_width, tile_height) = (width / tiles, height / tiles);
    let tiles = ["coffee.jpg", "rocket.jpg", "chelsea.jpg"].map(|sample| {
        let photo = image::open(repository().join("samples").join(sample)).unwrap();
        photo.resize_exact(tile_width, tile_height, FilterType::Lanczos3).into_rgb8()
    });
    let mut random = 1;
    RgbImage::from_fn(width, height, |x, y| {
        let (column, row) = (x / tile_width, y / tile_height);
        let tile = &tiles[((column + row) % 3) as usize];
        let mut pixel = *tile.get_pixel(mirror(x, tile_width), mirror(y, tile_height));
        let noise = next_noise(&mut random);
        pixel.0 = pixel.0.map(|value| value.saturating_add_signed(noise));
        pixel
    })
}

/// Returns the position within a tile; every second tile is mirrored, so that tiles join seamlessly.
fn mirror(at: u32, length: u32) -> u32 {
    let within = at % length;
    if (at / length).is_multiple_of(2) { within } else { length - 1 - within }
}

/// Returns noise of a roughly normal distribution (xorshift64); half of the values are between -4 and 4.
fn next_noise(random: &mut u64) -> i8 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    let [one, other, ..] = random.to_le_bytes();
    i8::try_from((i16::from(one) + i16::from(other) - 255) / 20).unwrap()
}

fn encode_jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut jpeg = Vec::new();
    let mut encoder = Encoder::new(&mut jpeg, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    let [width, height] = [picture.width(), picture.height()].map(|side| side.try_into().unwrap());
    encoder.encode(picture.as_raw(), width, height, ColorType::Rgb).unwrap();
    jpeg
}

fn encode_png(picture: &RgbImage) -> Vec<u8> {
    let mut png = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut png, CompressionType::Level(6), PngFilter::Adaptive);
    let (width, height) = picture.dimensions();
    encoder.write_image(picture.as_raw(), width, height, ExtendedColorType::Rgb8).unwrap();
    png
}
