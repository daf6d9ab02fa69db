//! A test image, and assertions on processed images.
//!
//! The quarters of the test image have different colours, so that the test detects every rotation and flip.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use preprocess::{
    Settings,
    image::{ProcessedImage, Recipe, process},
};

pub(crate) const RED: [u8; 3] = [220, 40, 30];
pub(crate) const GREEN: [u8; 3] = [30, 180, 60];
pub(crate) const BLUE: [u8; 3] = [40, 50, 200];
pub(crate) const YELLOW: [u8; 3] = [230, 220, 50];

/// Colours of the quarters of the test image, row by row.
pub(crate) const COLOURS: [[u8; 3]; 4] = [RED, GREEN, BLUE, YELLOW];

/// Colours of the quarters of the files in `data/` that other programs wrote.
pub(crate) const COLOURS_OF_FILES: [[u8; 3]; 4] =
    [[200, 30, 40], [30, 180, 60], [40, 60, 200], [220, 210, 50]];

/// Maximum difference per channel that encoding a test colour as JPEG may cause. The test colours differ from
/// each other by much more.
const TOLERANCE: u8 = 12;

/// Returns the default recipe, which describes how uploads are processed.
pub(crate) fn recipe() -> Recipe {
    Settings::default().recipe()
}

/// Returns an image of 400×300 pixels with a different colour in each quarter.
pub(crate) fn test_image() -> RgbImage {
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

/// Decodes a processed image, and asserts that it is an RGB JPEG of the stated size.
pub(crate) fn decode(processed: &ProcessedImage) -> RgbImage {
    assert_eq!(image::guess_format(&processed.jpeg).unwrap(), ImageFormat::Jpeg);
    let decoded = image::load_from_memory(&processed.jpeg).unwrap();
    assert_eq!(decoded.color(), image::ColorType::Rgb8);
    assert_eq!((decoded.width(), decoded.height()), (processed.width, processed.height));
    decoded.into_rgb8()
}

/// Returns the colours at the centres of the four quarters, row by row.
pub(crate) fn quarter_colours(image: &RgbImage) -> [[u8; 3]; 4] {
    let (width, height) = image.dimensions();
    [(1, 1), (3, 1), (1, 3), (3, 3)].map(|(x, y)| image.get_pixel(width * x / 4, height * y / 4).0)
}

/// Returns true if two colours are equal within [`TOLERANCE`].
pub(crate) fn is_near(found: [u8; 3], expected: [u8; 3]) -> bool {
    found.iter().zip(expected).all(|(&a, b)| a.abs_diff(b) <= TOLERANCE)
}

/// Asserts that two colours are equal within [`TOLERANCE`].
#[track_caller]
pub(crate) fn assert_near(found: [u8; 3], expected: [u8; 3], description: &str) {
    assert!(is_near(found, expected), "{description}: found {found:?}, expected {expected:?}");
}

/// Processes a file with the aspect ratio of the test image, and asserts the colours of its quarters.
#[track_caller]
pub(crate) fn assert_quarters(file: &[u8], expected: [[u8; 3]; 4], description: &str) {
    assert_processed(file, (341, 256), expected, description);
}

/// Processes a file, and asserts the size of the result and the colours of its quarters.
#[track_caller]
pub(crate) fn assert_processed(file: &[u8], size: (u32, u32), expected: [[u8; 3]; 4], description: &str) {
    let processed = process(file, &recipe()).unwrap_or_else(|error| panic!("{description}: {error:?}"));
    assert_eq!((processed.width, processed.height), size, "{description}");
    for (found, expected) in quarter_colours(&decode(&processed)).into_iter().zip(expected) {
        assert_near(found, expected, description);
    }
}
