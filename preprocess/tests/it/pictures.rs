//! A picture whose every turn and flip shows, and what is made of it.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use preprocess::{
    Settings,
    image::{Processed, Recipe, process},
};

pub(crate) const RED: [u8; 3] = [220, 40, 30];
pub(crate) const GREEN: [u8; 3] = [30, 180, 60];
pub(crate) const BLUE: [u8; 3] = [40, 50, 200];
pub(crate) const YELLOW: [u8; 3] = [230, 220, 50];

/// The picture's quarters, row by row.
pub(crate) const COLOURS: [[u8; 3]; 4] = [RED, GREEN, BLUE, YELLOW];

/// JPEG rounds colours; two different ones here are much further apart.
const TOLERANCE: u8 = 12;

pub(crate) fn recipe() -> Recipe {
    Settings::default().recipe()
}

/// 400×300 with a colour in each quarter: any turn or flip shows.
pub(crate) fn picture() -> RgbImage {
    RgbImage::from_fn(400, 300, |x, y| {
        Rgb(match (x < 200, y < 150) {
            (true, true) => RED,
            (false, true) => GREEN,
            (true, false) => BLUE,
            (false, false) => YELLOW,
        })
    })
}

pub(crate) fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    image.into().write_to(&mut file, format).unwrap();
    file.into_inner()
}

pub(crate) fn decode(processed: &Processed) -> RgbImage {
    assert_eq!(image::guess_format(&processed.jpeg).unwrap(), ImageFormat::Jpeg);
    let picture = image::load_from_memory(&processed.jpeg).unwrap();
    assert_eq!(picture.color(), image::ColorType::Rgb8);
    assert_eq!((picture.width(), picture.height()), (processed.width, processed.height));
    picture.into_rgb8()
}

/// The centres of the four quarters, row by row.
pub(crate) fn quarters(picture: &RgbImage) -> [[u8; 3]; 4] {
    let (width, height) = picture.dimensions();
    [(1, 1), (3, 1), (1, 3), (3, 3)].map(|(x, y)| picture.get_pixel(width * x / 4, height * y / 4).0)
}

#[track_caller]
pub(crate) fn assert_near(found: [u8; 3], expected: [u8; 3], what: &str) {
    let near = found.iter().zip(expected).all(|(&a, b)| a.abs_diff(b) <= TOLERANCE);
    assert!(near, "{what}: found {found:?}, expected {expected:?}");
}

#[track_caller]
pub(crate) fn assert_quarters(file: &[u8], expected: [[u8; 3]; 4], what: &str) {
    let processed = process(file, &recipe()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!((processed.width, processed.height), (341, 256), "{what}");
    for (found, expected) in quarters(&decode(&processed)).into_iter().zip(expected) {
        assert_near(found, expected, what);
    }
}
