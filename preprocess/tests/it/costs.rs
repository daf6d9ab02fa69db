//! What a header says of the cost, and what is refused by it.

use image::{ImageFormat, Rgb, RgbImage, RgbaImage};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use preprocess::image::{Coding, ImageError, Jpeg, Limits, Plan, Process, Recipe, inspect, process};

use crate::{
    hand_made::png_header_only,
    pictures::{encode, picture, recipe},
    support::sample,
};

fn jpeg(progressive: bool, colour: ColorType) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 90);
    encoder.set_progressive(progressive);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    let channels = if colour == ColorType::Luma { 1 } else { 3 };
    encoder.encode(&picture().as_raw()[..400 * 300 * channels], 400, 300, colour).unwrap();
    file
}

fn coding(file: &[u8]) -> Jpeg {
    match inspect(file, &recipe().limits).unwrap().coding {
        Coding::Jpeg(jpeg) => jpeg,
        other => panic!("{other:?}"),
    }
}

/// Position of the first segment of that kind.
fn find(file: &[u8], marker: u8) -> usize {
    file.windows(2).position(|pair| pair == [0xFF, marker]).unwrap()
}

/// The file with its size changed in the frame header.
fn of_size(mut file: Vec<u8>, frame: u8, (width, height): (u16, u16)) -> Vec<u8> {
    let at = find(&file, frame);
    file[at + 5..at + 7].copy_from_slice(&height.to_be_bytes());
    file[at + 7..at + 9].copy_from_slice(&width.to_be_bytes());
    file
}

/// The file with its last scan so often again that it has `scans`.
fn with_scans(mut file: Vec<u8>, scans: u32) -> Vec<u8> {
    let last = file.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).unwrap();
    let end = file.len() - 2;
    let scan = file[last..end].to_vec();
    for _ in coding(&file).scans..scans {
        file.splice(end..end, scan.iter().copied());
    }
    file
}

fn cost(file: &[u8]) -> u64 {
    Plan::of(file, &recipe()).unwrap().cost().bytes
}

fn kind(file: &[u8], recipe: &Recipe) -> &'static str {
    process(file, recipe).unwrap_err().kind()
}

#[test]
fn kinds_of_jpeg() {
    let baseline = coding(&jpeg(false, ColorType::Rgb));
    assert_eq!(
        (baseline.process, baseline.components, baseline.bits, baseline.scans),
        (Process::Baseline, 3, 8, 1)
    );
    assert!(baseline.whole);
    let progressive = coding(&jpeg(true, ColorType::Rgb));
    assert_eq!((progressive.process, progressive.components), (Process::Progressive, 3));
    assert!(progressive.scans > 3, "{}", progressive.scans);
    assert_eq!(coding(&jpeg(false, ColorType::Luma)).components, 1);
    assert_eq!(coding(&sample("chelsea.jpg")).process, Process::Baseline);

    // Rubbish between segments is stepped over.
    let mut untidy = jpeg(false, ColorType::Rgb);
    let tables = find(&untidy, 0xDB);
    untidy.splice(tables..tables, [0, 0, 0]);
    let said = |jpeg: Jpeg| (jpeg.process, jpeg.components, jpeg.bits, jpeg.scans, jpeg.whole);
    assert_eq!(said(coding(&untidy)), said(baseline));
    process(&untidy, &recipe()).unwrap();
}

#[test]
fn kinds_of_png_and_webp() {
    let animated = |file: &[u8]| match inspect(file, &recipe().limits).unwrap().coding {
        Coding::Png(png) => (png.alpha, png.animated),
        Coding::WebP(webp) => (webp.alpha, webp.animated),
        other => panic!("{other:?}"),
    };
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        assert_eq!(animated(&encode(picture(), format)), (false, false), "{format:?}");
        assert_eq!(animated(&encode(RgbaImage::new(40, 30), format)), (true, false), "{format:?}");
    }
}

#[test]
fn only_baseline_jpeg_may_have_more_pixels() {
    let large = (7000, 5000);
    let baseline = of_size(jpeg(false, ColorType::Rgb), 0xC0, large);
    assert_eq!(inspect(&baseline, &recipe().limits).unwrap().pixels(), 35_000_000);
    let progressive = of_size(jpeg(true, ColorType::Rgb), 0xC2, large);
    assert_eq!(kind(&progressive, &recipe()), "too_many_pixels");
    assert_eq!(kind(&png_header_only(7000, 5000), &recipe()), "too_many_pixels");
    // Who lowers the one limit lowers the other.
    let limits = Limits { max_pixels: 1000, ..recipe().limits };
    let refused = inspect(&png_header_only(100, 100), &limits).unwrap_err();
    assert!(matches!(refused, ImageError::TooManyPixels { limit: 1000, .. }), "{refused:?}");
}

#[test]
fn scans_are_counted_before_anything_is_decoded() {
    let limits = recipe().limits;
    let most = with_scans(jpeg(true, ColorType::Rgb), limits.max_scans);
    assert_eq!(coding(&most).scans, limits.max_scans);
    let more = with_scans(jpeg(true, ColorType::Rgb), limits.max_scans + 1);
    assert_eq!(kind(&more, &recipe()), "too_many_scans");
    // Many more are not even counted.
    let bomb = with_scans(of_size(jpeg(true, ColorType::Rgb), 0xC2, (4000, 4000)), 2000);
    assert_eq!(kind(&bomb, &recipe()), "too_many_scans");
}

#[test]
fn two_frames_are_one_too_many() {
    let mut file = jpeg(false, ColorType::Rgb);
    let frame = find(&file, 0xC0);
    let length = usize::from(u16::from_be_bytes([file[frame + 2], file[frame + 3]])) + 2;
    let again = file[frame..frame + length].to_vec();
    file.splice(frame..frame, again);
    assert_eq!(kind(&file, &recipe()), "corrupt_image");
}

#[test]
fn a_webp_that_says_two_sizes() {
    let small = encode(picture(), ImageFormat::WebP);
    let extended = |width: u32, height: u32| {
        let mut file = b"RIFF\0\0\0\0WEBPVP8X\x0A\0\0\0\0\0\0\0".to_vec();
        file.extend(&(width - 1).to_le_bytes()[..3]);
        file.extend(&(height - 1).to_le_bytes()[..3]);
        file.extend(&small[12..]);
        let length = u32::try_from(file.len() - 8).unwrap();
        file[4..8].copy_from_slice(&length.to_le_bytes());
        file
    };
    process(&extended(400, 300), &recipe()).unwrap();
    assert_eq!(kind(&extended(10, 10), &recipe()), "corrupt_image");
    assert_eq!(kind(&extended(401, 300), &recipe()), "corrupt_image");
}

#[test]
fn the_cost_grows_with_what_must_be_held() {
    let plain = cost(&of_size(jpeg(false, ColorType::Rgb), 0xC0, (4000, 3000)));
    let progressive = cost(&of_size(jpeg(true, ColorType::Rgb), 0xC2, (4000, 3000)));
    // 4:2:0 has 1.5 samples a pixel, of two bytes each.
    assert!(progressive >= plain + 36_000_000, "{plain} {progressive}");
    assert!(plain < 60_000_000, "{plain}");
    let png = cost(&png_header_only(4000, 3000));
    assert!((36_000_000..60_000_000).contains(&png), "{png}");
}

#[test]
fn a_picture_that_needs_more_memory_than_there_is() {
    let mut recipe = recipe();
    let file = encode(RgbImage::from_pixel(1000, 1000, Rgb([1, 2, 3])), ImageFormat::Png);
    let bytes = Plan::of(&file, &recipe).unwrap().cost().bytes;
    recipe.limits.max_bytes = bytes;
    process(&file, &recipe).unwrap();
    recipe.limits.max_bytes = bytes - 1;
    match process(&file, &recipe) {
        Err(ImageError::TooCostly { bytes: found, limit }) => {
            assert_eq!((found, limit), (bytes, bytes - 1));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(kind(&file, &recipe), "too_much_memory");
}
