//! Compares crops with those that Pillow computes.
//!
//! `tests/data/pillow/reference.py` writes the crops of Pillow.

use super::*;

/// The cases, a line each: picture, filter, resize, height, width, channels.
const CASES: &str = include_str!("../../../tests/data/pillow/cases.tsv");
/// The crops of Pillow, in the order of the cases.
const PIXELS: &[u8] = include_bytes!("../../../tests/data/pillow/pixels.bin");

/// Maximum difference from Pillow, in levels.
const TOLERANCE: u8 = 1;

/// Draws the picture that `noise` in `reference.py` draws.
fn draw_noise(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let value = |channel: u32| {
            let value = x * x * 7 + y * y * 13 + x * y * 5 + x * 37 + y * 91 + channel * 71;
            u8::try_from(value % 251).unwrap()
        };
        Rgb(match (x / 4 + y / 3) % 4 {
            0 => [0, 0, 255],
            1 => [255, 255, 0],
            _ => [value(0), value(1), value(2)],
        })
    })
}

/// Returns the file of a picture that a case names.
fn read_picture(name: &str) -> Vec<u8> {
    match name.strip_prefix("noise-").and_then(|size| size.split_once('x')) {
        Some((width, height)) => {
            encode_png(&draw_noise(width.parse().unwrap(), height.parse().unwrap()).into())
        }
        None => std::fs::read(format!("{}/../samples/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap(),
    }
}

fn read_resize(text: &str) -> Resize {
    let (kind, numbers) = text.split_once(':').unwrap_or((text, ""));
    let numbers: Vec<u32> = numbers.split(',').filter_map(|number| number.parse().ok()).collect();
    match (kind, numbers.as_slice()) {
        ("shorter", &[side]) => Resize::ShorterSide(side),
        ("cover", &[height, width]) => Resize::Cover { height, width },
        ("squash", []) => Resize::Squash,
        ("letterbox", &[red, green, blue]) => {
            Resize::Letterbox([red, green, blue].map(|level| u8::try_from(level).unwrap()))
        }
        _ => panic!("{text}"),
    }
}

fn read_geometry(filter: &str, resize: &str, height: &str, width: &str, channels: &str) -> Geometry {
    let filter = match filter {
        "bilinear" => Filter::Bilinear,
        "bicubic" => Filter::Bicubic,
        "lanczos" => Filter::Lanczos,
        "nearest" => Filter::Nearest,
        _ => panic!("{filter}"),
    };
    let channels = match channels {
        "rgb" => ChannelOrder::Rgb,
        "bgr" => ChannelOrder::Bgr,
        "grey" => ChannelOrder::Grey,
        _ => panic!("{channels}"),
    };
    let crop = CropShape { height: height.parse().unwrap(), width: width.parse().unwrap(), channels };
    Geometry { resize: read_resize(resize), filter, crop }
}

#[test]
fn every_filter_and_resize_gives_the_pixels_of_pillow() {
    let mut remaining = PIXELS;
    let mut failures = Vec::new();
    let mut case_count = 0;
    for case in CASES.lines().skip(1) {
        let [picture, filter, resize, height, width, channels] =
            case.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let geometry = read_geometry(filter, resize, height, width, channels);
        let (expected, rest) = remaining.split_at(geometry.crop.byte_count());
        remaining = rest;
        let file = read_picture(picture);
        let header = ImageHeader::read(&file, &LIMITS).unwrap();
        let crop = crop(&file, &header, geometry).unwrap();
        let tolerance = if geometry.filter == Filter::Nearest { 0 } else { TOLERANCE };
        let difference = largest_difference(crop.bytes(), expected);
        if difference > tolerance {
            failures.push(format!("{case}: {difference} levels"));
        }
        let is_enlarged = picture == "noise-11x15";
        assert_eq!(crop.is_enlarged(), is_enlarged, "{case}");
        case_count += 1;
    }
    assert!(remaining.is_empty() && case_count >= 60, "{case_count} cases, {} bytes", remaining.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn image_that_is_stored_sideways_gives_the_crop_of_the_upright_image() {
    // The orientation 6 says that the stored image must be turned by 90° clockwise.
    let upright = draw_noise(48, 24);
    let stored = image::imageops::rotate270(&upright);
    let (upright, stored) = (
        encode_png(&upright.into()),
        encode_png_with_exif(&stored, &exif(6, ByteOrder::LittleEndian, SHORT)),
    );
    for resize in [
        Resize::ShorterSide(20),
        Resize::Cover { height: 12, width: 20 },
        Resize::Squash,
        Resize::Letterbox([9, 8, 7]),
    ] {
        for channels in [ChannelOrder::Rgb, ChannelOrder::Grey] {
            let crop_shape = CropShape { height: 10, width: 18, channels };
            let geometry = Geometry { resize, filter: Filter::Bilinear, crop: crop_shape };
            let [expected, turned] = [&upright, &stored]
                .map(|file| crop(file, &ImageHeader::read(file, &LIMITS).unwrap(), geometry).unwrap());
            // The passes of the resize are rounded in another order.
            let difference = largest_difference(turned.bytes(), expected.bytes());
            assert!(difference <= 2, "{resize:?} {channels:?}: {difference}");
        }
    }
}

#[test]
fn grey_image_and_colour_image_give_the_same_grey_crop() {
    let colour = draw_gradient(64, 48);
    let shape = CropShape { height: 28, width: 28, channels: ChannelOrder::Grey };
    let geometry = Geometry { resize: Resize::ShorterSide(32), filter: Filter::Bicubic, crop: shape };
    let grey = image::GrayImage::from_fn(64, 48, |x, y| {
        let [red, green, blue] = colour.get_pixel(x, y).0.map(u32::from);
        image::Luma([u8::try_from((red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16).unwrap()])
    });
    let [from_colour, from_grey] = [DynamicImage::from(colour), DynamicImage::from(grey)].map(|image| {
        let file = encode_png(&image);
        crop(&file, &ImageHeader::read(&file, &LIMITS).unwrap(), geometry).unwrap()
    });
    assert_eq!(from_colour, from_grey);
    assert_eq!(from_colour.bytes().len(), 28 * 28);
}
