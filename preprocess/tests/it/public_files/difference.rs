//! Measures how much a stored picture differs from the pixels of a reference decoder.

use std::fs;

use image::{
    DynamicImage, GrayImage, ImageFormat, Rgb, RgbImage,
    imageops::{self, FilterType, colorops::BiLevel},
};
use preprocess::image::process;

use crate::test_image::{decode, encode, recipe};

/// Side of the blocks whose mean colours are compared, in pixels.
///
/// A JPEG changes single pixels at edges by much more than a block of this size.
const BLOCK_SIDE: u32 = 4;
/// Maximum difference of the means of a channel in one block.
///
/// The limit detects faults in a part of the picture. Right pictures of the corpora differ by less than 8, because two
/// resizers draw thin lines with different sharpness.
const MAX_BLOCK_DIFFERENCE: f64 = 12.0;
/// Maximum mean of the differences of all channels of all pixels.
///
/// The limit detects faults that leave the means of the blocks as they are, such as pixels in a wrong order. Right
/// pictures of the corpora differ by less than 3.5, because they are encoded as JPEG.
const MAX_MEAN_DIFFERENCE: f64 = 5.0;

/// Describes how two pictures differ. Returns `None` if they differ as little as two decoders and a JPEG explain.
pub(super) fn describe_difference(found: &RgbImage, expected: &RgbImage) -> Option<String> {
    if found.dimensions() != expected.dimensions() {
        return Some(format!("the size is {:?} and not {:?}", found.dimensions(), expected.dimensions()));
    }
    let (block, mean) = (max_block_difference(found, expected), mean_difference(found, expected));
    (block > MAX_BLOCK_DIFFERENCE || mean > MAX_MEAN_DIFFERENCE)
        .then(|| format!("pixels differ by {mean:.1}, and by {block:.1} in one block"))
}

fn mean_difference(found: &RgbImage, expected: &RgbImage) -> f64 {
    let total: u64 = found.iter().zip(expected.iter()).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum();
    total as f64 / found.len() as f64
}

fn max_block_difference(found: &RgbImage, expected: &RgbImage) -> f64 {
    let (width, height) = found.dimensions();
    let mut maximum: f64 = 0.0;
    for top in (0..height).step_by(BLOCK_SIDE as usize) {
        for left in (0..width).step_by(BLOCK_SIDE as usize) {
            let (right, bottom) = ((left + BLOCK_SIDE).min(width), (top + BLOCK_SIDE).min(height));
            let mut sums = [0; 3];
            for (x, y) in (top..bottom).flat_map(|y| (left..right).map(move |x| (x, y))) {
                let (a, b) = (found.get_pixel(x, y).0, expected.get_pixel(x, y).0);
                for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                    *sum += i32::from(a) - i32::from(b);
                }
            }
            let pixel_count = f64::from((right - left) * (bottom - top));
            maximum = sums.iter().map(|&sum| f64::from(sum.abs()) / pixel_count).fold(maximum, f64::max);
        }
    }
    maximum
}

/// Parses a binary PPM as Pillow writes it: three lines of text and the pixels.
pub(super) fn parse_ppm(file: &[u8]) -> RgbImage {
    let mut parts = file.splitn(4, |&byte| byte == b'\n');
    let mut next_line = || str::from_utf8(parts.next().unwrap()).unwrap();
    assert_eq!(next_line(), "P6");
    let (width, height) = next_line().split_once(' ').unwrap();
    assert_eq!(next_line(), "255");
    let pixels = parts.next().unwrap().to_vec();
    RgbImage::from_raw(width.parse().unwrap(), height.parse().unwrap(), pixels).unwrap()
}

/// Returns a photo of 256×256 pixels and its stored JPEG, decoded.
fn photo() -> (RgbImage, RgbImage) {
    let file = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/coffee.jpg")).unwrap();
    let photo = image::load_from_memory(&file).unwrap();
    let photo = photo.resize_to_fill(256, 256, FilterType::Lanczos3).into_rgb8();
    let upload = encode(photo.clone(), ImageFormat::Png);
    let stored = process(&upload, &recipe()).unwrap();
    (photo, decode(&stored))
}

#[test]
fn stored_photo_equals_its_pixels() {
    let (photo, stored) = photo();
    assert_eq!(describe_difference(&stored, &photo), None);
}

#[test]
fn every_kind_of_wrong_picture_differs() {
    let (photo, stored) = photo();
    let recoloured = |recolour: fn([u8; 3]) -> [u8; 3]| {
        let mut picture = stored.clone();
        picture.pixels_mut().for_each(|pixel| pixel.0 = recolour(pixel.0));
        picture
    };
    let mut one_stripe = stored.clone();
    for x in 0..256 {
        one_stripe.put_pixel(x, 100, Rgb([0, 135, 0]));
    }
    let mut grey_end = stored.clone();
    for (x, y) in (236..256).flat_map(|y| (0..256).map(move |x| (x, y))) {
        grey_end.put_pixel(x, y, Rgb([128; 3]));
    }
    let wrong_pictures = [
        ("turned by 90°", imageops::rotate90(&stored)),
        ("turned by 180°", imageops::rotate180(&stored)),
        ("turned by 270°", imageops::rotate270(&stored)),
        ("mirrored", imageops::flip_horizontal(&stored)),
        ("upside down", imageops::flip_vertical(&stored)),
        ("of another size", imageops::crop_imm(&stored, 0, 0, 256, 255).to_image()),
        ("black", RgbImage::new(256, 256)),
        ("inverted", recoloured(|colour| colour.map(|level| 255 - level))),
        ("with red and blue exchanged", recoloured(|[red, green, blue]| [blue, green, red])),
        ("neon", recoloured(|colour| colour.map(|level| level.saturating_add(level / 4)))),
        ("too dark, as with alpha applied twice", recoloured(|colour| colour.map(|level| level / 4 * 3))),
        ("with a green stripe", one_stripe),
        ("with a grey end", grey_end),
    ];
    for (description, picture) in wrong_pictures {
        assert!(describe_difference(&picture, &photo).is_some(), "{description}");
    }
}

/// After scaling to half the size, the mirrored bits of a byte stay inside a block.
#[test]
fn picture_of_one_bit_with_mirrored_bits_differs_at_half_the_size() {
    let (photo, _) = photo();
    let mut bits = imageops::grayscale(&imageops::resize(&photo, 512, 512, FilterType::Triangle));
    imageops::dither(&mut bits, &BiLevel);
    let mirrored = GrayImage::from_fn(512, 512, |x, y| *bits.get_pixel(x ^ 7, y));
    let [expected, found] = [bits, mirrored].map(|picture| {
        DynamicImage::from(imageops::resize(&picture, 256, 256, FilterType::Lanczos3)).into_rgb8()
    });
    assert!(describe_difference(&found, &expected).is_some());
}
