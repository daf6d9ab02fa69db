//! Creates the pictures that every tool processes. Each run creates the same pictures.
//!
//! A picture is a grid of mirrored copies of the photos in `samples/`, each at about the photo's own size.
//! Noise like that of a camera sensor is added, because smooth pictures would be too easy to decode.

use std::{fs, path::Path};

use bench_harness::{python, report_skipped, repository};
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
/// The same pixels as [`PNG_MIDDLE`] in a file written by libpng. libpng chooses other filters and compresses
/// differently, so decoding this file takes a different time.
pub(crate) const PNG_OF_LIBPNG: &str = "PNG 2 MP, libpng's";
pub(crate) const PROGRESSIVE_LARGE: &str = "progressive JPEG 12 MP";
const WEBP_MIDDLE: &str = "WebP 2 MP";

/// Quality of the JPEGs, which is typical of phones and web sites. The JPEGs use 4:2:0 chroma subsampling.
const QUALITY: u8 = 85;
/// Number of photos in each row, for the large, the middle and the small picture. Each column has as many.
const TILES_PER_ROW: [u32; 3] = [8, 3, 1];

/// A picture file that the tools scale down, and the expected result.
pub(crate) struct Picture {
    /// Name of the picture in the tables.
    pub(crate) name: &'static str,
    /// Name of the file in the folder of the pictures.
    pub(crate) file_name: &'static str,
    /// Width and height in pixels.
    pub(crate) size: (u32, u32),
    /// Length of the file in bytes.
    pub(crate) file_length: usize,
    /// The expected pixels of the scaled picture: all source pixels resized with Lanczos3. The values are
    /// from 0 to 1 and not rounded to 8 bits.
    pub(crate) expected: Rgb32FImage,
    /// Settings of the JPEG that this project makes from the picture. Every tool must use the same settings.
    pub(crate) settings: JpegSettings,
}

impl Picture {
    /// Returns the peak signal-to-noise ratio of 8-bit RGB pixels, compared with the expected pixels, in dB.
    pub(crate) fn psnr(&self, rgb: &[u8]) -> f64 {
        let expected_length = self.expected.len();
        assert_eq!(rgb.len(), expected_length, "number of bytes (left) is not the expected number (right)");
        let pairs = rgb.iter().zip(self.expected.as_raw());
        let errors = pairs.map(|(&value, &expected)| f64::from(value) / 255.0 - f64::from(expected));
        -10.0 * (errors.map(|error| error * error).sum::<f64>() / rgb.len() as f64).log10()
    }
}

/// Sampling factors and quantisation tables of a JPEG.
///
/// Two JPEGs of the same quality and chroma subsampling have equal settings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct JpegSettings {
    /// One byte per component: the horizontal sampling factor in the high four bits, the vertical sampling
    /// factor in the low four.
    sampling: Vec<u8>,
    /// The content of all segments with quantisation tables, in file order.
    tables: Vec<u8>,
}

impl JpegSettings {
    /// Reads the settings from the segments before the first scan.
    pub(crate) fn read(jpeg: &[u8]) -> Self {
        let (mut sampling, mut tables) = (Vec::new(), Vec::new());
        let mut start = 2;
        // The marker 0xDA starts the first scan.
        while jpeg[start + 1] != 0xDA {
            let &[0xFF, marker, high, low] = &jpeg[start..start + 4] else {
                panic!("no JPEG segment starts at byte {start}")
            };
            let end = start + 2 + usize::from(u16::from_be_bytes([high, low]));
            let segment = &jpeg[start + 4..end];
            match marker {
                0xDB => tables.extend_from_slice(segment),
                // A frame header has six bytes of precision, size and component count, then three bytes per
                // component. The second of the three holds the sampling factors.
                0xC0..=0xC2 => {
                    sampling = segment[6..].chunks_exact(3).map(|component| component[1]).collect()
                }
                _ => {}
            }
            start = end;
        }
        Self { sampling, tables }
    }
}

/// Writes all pictures into `folder`.
///
/// `sizes` holds the width and height of the large, the middle and the small pictures.
pub(crate) fn create(folder: &Path, sizes: [(u32, u32); 3], notes: &mut Vec<String>) -> Vec<Picture> {
    let [large, middle, small] = std::array::from_fn(|index| draw_scene(sizes[index], TILES_PER_ROW[index]));
    let write_picture = |name, file_name, bytes| {
        fs::write(folder.join(file_name), bytes).unwrap();
        inspect_file(folder, name, file_name)
    };
    let mut pictures = vec![
        write_picture(JPEG_LARGE, "large.jpg", encode_jpeg(&large)),
        write_picture(JPEG_MIDDLE, "middle.jpg", encode_jpeg(&middle)),
        write_picture(JPEG_SMALL, "small.jpg", encode_jpeg(&small)),
        write_picture(PNG_MIDDLE, "middle.png", encode_png(&middle)),
    ];
    for (name, from, to) in [
        (PNG_OF_LIBPNG, "middle.png", "middle-libpng.png"),
        (PROGRESSIVE_LARGE, "large.jpg", "large-progressive.jpg"),
        (WEBP_MIDDLE, "middle.png", "middle.webp"),
    ] {
        if convert(folder, from, to) {
            pictures.push(inspect_file(folder, name, to));
        } else {
            report_skipped(
                notes,
                &format!("{name}: Pillow is missing; benches/preprocess-peers/install installs it"),
            );
        }
    }
    pictures
}

/// Converts a picture with Pillow. Returns false if Pillow is not installed.
fn convert(folder: &Path, from: &str, to: &str) -> bool {
    let Some(mut convert) = python("preprocess-peers", "convert.py") else { return false };
    let status = convert.args([from, to]).current_dir(folder).status().unwrap();
    assert!(status.success(), "convert.py {from} {to}: {status}");
    true
}

/// Reads a picture file and computes the pixels and the JPEG settings that every tool must produce from it.
fn inspect_file(folder: &Path, name: &'static str, file_name: &'static str) -> Picture {
    let bytes = fs::read(folder.join(file_name)).unwrap();
    let processed = preprocess::image::process(&bytes, &recipe()).unwrap();
    // If Pillow is installed, it decodes the picture to a BMP, so that the expected pixels do not depend on a
    // decoder of this project.
    let decoded_file = if convert(folder, file_name, "decoded.bmp") { "decoded.bmp" } else { file_name };
    let full_size = ImageReader::open(folder.join(decoded_file)).unwrap().decode().unwrap();
    Picture {
        name,
        file_name,
        size: (full_size.width(), full_size.height()),
        file_length: bytes.len(),
        expected: resize(&full_size.into_rgb32f(), processed.width, processed.height, FilterType::Lanczos3),
        settings: JpegSettings::read(&processed.jpeg),
    }
}

/// Draws a picture with `tiles_per_row` photos in each row and in each column, and adds noise.
fn draw_scene((width, height): (u32, u32), tiles_per_row: u32) -> RgbImage {
    let (tile_width, tile_height) = (width / tiles_per_row, height / tiles_per_row);
    let photos = ["coffee.jpg", "rocket.jpg", "chelsea.jpg"].map(|sample| {
        let photo = image::open(repository().join("samples").join(sample)).unwrap();
        photo.resize_exact(tile_width, tile_height, FilterType::Lanczos3).into_rgb8()
    });
    let mut random = 1;
    RgbImage::from_fn(width, height, |x, y| {
        let (column, row) = (x / tile_width, y / tile_height);
        let tile = &photos[((column + row) % 3) as usize];
        let mut pixel = *tile.get_pixel(position_in_tile(x, tile_width), position_in_tile(y, tile_height));
        let noise = next_noise(&mut random);
        pixel.0 = pixel.0.map(|value| value.saturating_add_signed(noise));
        pixel
    })
}

/// Converts a position in the picture to a position in a tile of length `length`. Every second tile is
/// mirrored, so that neighbouring tiles join without an edge.
fn position_in_tile(position: u32, length: u32) -> u32 {
    let offset = position % length;
    if (position / length).is_multiple_of(2) { offset } else { length - 1 - offset }
}

/// Returns a random number whose distribution is roughly normal. About half of the numbers are between
/// -4 and 4.
///
/// `random` is the state of a xorshift64 generator.
fn next_noise(random: &mut u64) -> i8 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    // The sum of two random bytes is 255 on average. Values near the average are the most frequent ones.
    let [first, second, ..] = random.to_le_bytes();
    i8::try_from((i16::from(first) + i16::from(second) - 255) / 20).unwrap()
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
