//! Resizes small images whose pixels are known.

use resize::{Channels, CropWindow, Error, FilterType, NearestSpan, Resizer, Source};

/// Two columns of grey pixels: the left one is black, the right one is white.
const BLACK_AND_WHITE: [u8; 4] = [0, 255, 0, 255];

fn source(pixels: &mut [u8], channels: Channels, crop: CropWindow) -> Source<'_> {
    Source { pixels, width: 2, height: 2, channels, crop }
}

const RIGHT_COLUMN: CropWindow = CropWindow { left: 1.0, top: 0.0, width: 1.0, height: 2.0 };

#[test]
fn pixels_outside_the_crop_window_are_not_read() {
    let mut target = [0; 1];
    let mut pixels = BLACK_AND_WHITE;
    let mut source = source(&mut pixels, Channels::Grey, RIGHT_COLUMN);
    Resizer::default().resize(&mut source, FilterType::Bilinear, (1, 1), &mut target).unwrap();
    assert_eq!(target, [255]);
}

#[test]
fn grey_and_rgb_give_the_same_values() {
    let mut rgb = BLACK_AND_WHITE.map(|value| [value; 3]);
    let whole = CropWindow::whole(2, 2);
    let (mut grey_target, mut rgb_target) = ([0; 6], [0; 18]);
    let mut resizer = Resizer::default();
    let mut grey = BLACK_AND_WHITE;
    let mut grey = source(&mut grey, Channels::Grey, whole);
    resizer.resize(&mut grey, FilterType::Lanczos3, (3, 2), &mut grey_target).unwrap();
    let mut rgb = source(rgb.as_flattened_mut(), Channels::Rgb, whole);
    resizer.resize(&mut rgb, FilterType::Lanczos3, (3, 2), &mut rgb_target).unwrap();
    assert_eq!(rgb_target.as_chunks::<3>().0, grey_target.map(|value| [value; 3]));
}

#[test]
fn black_ink_does_not_change_how_the_other_inks_are_resized() {
    let mut cmyk = BLACK_AND_WHITE.map(|value| [value, value, 9, 255 - value]);
    let whole = CropWindow::whole(2, 2);
    let (mut grey_target, mut cmyk_target) = ([0; 6], [0; 24]);
    let mut resizer = Resizer::default();
    let mut grey = BLACK_AND_WHITE;
    let mut grey = source(&mut grey, Channels::Grey, whole);
    resizer.resize(&mut grey, FilterType::Bilinear, (3, 2), &mut grey_target).unwrap();
    let mut cmyk = source(cmyk.as_flattened_mut(), Channels::Cmyk, whole);
    resizer.resize(&mut cmyk, FilterType::Bilinear, (3, 2), &mut cmyk_target).unwrap();
    assert_eq!(grey_target[1], 128);
    for (&[cyan, magenta, yellow, _], grey) in cmyk_target.as_chunks::<4>().0.iter().zip(grey_target) {
        assert_eq!([cyan, magenta, yellow], [grey, grey, 9]);
    }
}

#[test]
fn nearest_copies_the_pixel_at_the_centre() {
    let mut row: [u8; 5] = [10, 20, 30, 40, 50];
    let source = Source {
        pixels: &mut row,
        width: 5,
        height: 1,
        channels: Channels::Grey,
        crop: CropWindow::whole(5, 1),
    };
    let whole = |length| NearestSpan { resized: u64::from(length), start: 0, length };
    let resizer = Resizer::default();
    let mut reduced = [0; 3];
    resizer.resize_nearest(&source, whole(3), whole(1), &mut reduced).unwrap();
    assert_eq!(reduced, [10, 30, 50]);
    let mut enlarged = [0; 20];
    resizer.resize_nearest(&source, whole(10), whole(2), &mut enlarged).unwrap();
    assert_eq!(enlarged, [[10, 10, 20, 20, 30, 30, 40, 40, 50, 50]; 2].as_flattened());
    let part = NearestSpan { resized: 10, start: 5, length: 3 };
    let mut cropped = [0; 3];
    resizer.resize_nearest(&source, part, whole(1), &mut cropped).unwrap();
    assert_eq!(cropped, [30, 40, 40]);
    let short = resizer.resize_nearest(&source, whole(3), whole(1), &mut [0; 2]);
    assert!(matches!(short, Err(Error::ShortBuffer)), "{short:?}");
}

#[test]
fn nearest_of_an_extreme_length_takes_a_bounded_time() {
    let mut row: Vec<u8> = (0..60_000).map(|column| if column < 30_000 { 0 } else { 255 }).collect();
    let (width, crop) = (60_000, CropWindow::whole(60_000, 1));
    let source = Source { pixels: &mut row, width, height: 1, channels: Channels::Grey, crop };
    let columns = NearestSpan { resized: 16_000_000_000, start: 7_999_999_999, length: 3 };
    let mut part = [1; 3];
    let rows = NearestSpan { resized: 1, start: 0, length: 1 };
    Resizer::default().resize_nearest(&source, columns, rows, &mut part).unwrap();
    assert_eq!(part, [0, 255, 255]);
}

#[test]
fn buffer_that_is_too_short_is_an_error() {
    let mut resizer = Resizer::default();
    let mut pixels = BLACK_AND_WHITE;
    let mut short_source = source(&mut pixels, Channels::Rgb, RIGHT_COLUMN);
    let result = resizer.resize(&mut short_source, FilterType::Bilinear, (1, 1), &mut [0; 3]);
    assert!(matches!(result, Err(Error::Buffer(_))), "{result:?}");
    let mut grey = source(&mut pixels, Channels::Grey, RIGHT_COLUMN);
    let result = resizer.resize(&mut grey, FilterType::Bilinear, (2, 2), &mut [0; 3]);
    assert!(matches!(result, Err(Error::Buffer(_))), "{result:?}");
}

#[test]
fn crop_window_outside_the_source_is_an_error() {
    let outside = CropWindow { width: 2.0, ..RIGHT_COLUMN };
    let mut pixels = BLACK_AND_WHITE;
    let mut grey = source(&mut pixels, Channels::Grey, outside);
    let result = Resizer::default().resize(&mut grey, FilterType::Bilinear, (1, 1), &mut [0; 1]);
    assert!(matches!(result, Err(Error::Resize(_))), "{result:?}");
}
