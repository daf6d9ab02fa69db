//! Tests that every accepted format, in each of its variants, gives the same upright RGB image.

use image::{
    DynamicImage, Frame, GrayImage, ImageFormat, Luma, LumaA, Rgb, RgbImage, Rgba, RgbaImage,
    codecs::gif::GifEncoder,
};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use preprocess::image::{Format, PlanOutcome, ProcessingPlan, Recipe, inspect, process, run_plan};

use crate::{
    hand_made::palette_png,
    support::read_sample,
    test_image::{
        BLUE, COLOURS, GREEN, RED, assert_near, assert_quarters, decode, encode, quarter_colours, recipe,
        test_image,
    },
};

#[test]
fn image_in_every_format_is_processed() {
    for (format, expected) in [
        (ImageFormat::Jpeg, Format::Jpeg),
        (ImageFormat::Png, Format::Png),
        (ImageFormat::WebP, Format::WebP),
        (ImageFormat::Gif, Format::Gif),
        (ImageFormat::Bmp, Format::Bmp),
        (ImageFormat::Tiff, Format::Tiff),
    ] {
        let file = encode(test_image(), format);
        let header = inspect(&file, &recipe().limits).unwrap();
        assert_eq!((header.format(), header.width, header.height), (expected, 400, 300));
        assert_quarters(&file, COLOURS, expected.name());
    }
}

#[test]
fn progressive_jpeg_is_processed() {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 95);
    encoder.set_progressive(true);
    encoder.encode(test_image().as_raw(), 400, 300, ColorType::Rgb).unwrap();
    assert_quarters(&file, COLOURS, "progressive");
}

/// The photo `samples/coffee.jpg` as a baseline JPEG with 4:2:0 and one scan per component.
const PHOTO_WITH_A_SCAN_PER_COMPONENT: &[u8] = include_bytes!("data/jpeg_420_a_scan_per_component.jpg");

/// Encodes `image` as a baseline JPEG. `jpeg-encoder` writes one scan per component if it optimises the
/// tables.
fn encode_baseline(
    image: &RgbImage,
    sampling: SamplingFactor,
    colour: ColorType,
    has_scan_per_component: bool,
) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 90);
    encoder.set_sampling_factor(sampling);
    encoder.set_optimized_huffman_tables(has_scan_per_component);
    let (width, height) = (image.width().try_into().unwrap(), image.height().try_into().unwrap());
    match colour {
        ColorType::Rgb => encoder.encode(image.as_raw(), width, height, colour).unwrap(),
        _ => {
            let inks: Vec<u8> = image
                .pixels()
                .flat_map(|pixel| [pixel[0], pixel[1], pixel[2], 255].map(|ink| 255 - ink))
                .collect();
            encoder.encode(&inks, width, height, colour).unwrap();
        }
    }
    file
}

#[test]
fn photo_with_a_scan_per_component_is_processed() {
    let found = decode(&process(PHOTO_WITH_A_SCAN_PER_COMPONENT, &recipe()).unwrap());
    let expected = decode(&process(&read_sample("coffee.jpg"), &recipe()).unwrap());
    assert_eq!(found.dimensions(), (384, 256));
    for (found, expected) in quarter_colours(&found).into_iter().zip(quarter_colours(&expected)) {
        assert_near(found, expected, "scan per component");
    }
}

#[test]
fn jpeg_with_a_scan_per_component_gives_the_image_of_the_same_coefficients_in_one_scan() {
    use SamplingFactor::{R_4_2_0, R_4_2_2, R_4_4_0, R_4_4_4};
    let photo = image::load_from_memory(&read_sample("coffee.jpg")).unwrap().into_rgb8();
    let samplings = [R_4_4_4, R_4_2_2, R_4_4_0, R_4_2_0];
    // The sizes are decoded at 1/1, 1/2, 1/4 and 1/8, and are no multiples of an MCU.
    for (width, height) in [(397, 301), (1103, 1031), (2101, 2053), (4105, 4099)] {
        let resized = image::imageops::resize(&photo, width, height, image::imageops::FilterType::Nearest);
        for sampling in samplings.into_iter().filter(|&sampling| width < 2000 || sampling == R_4_2_0) {
            let [one_scan, scan_per_component] =
                [false, true].map(|is_split| encode_baseline(&resized, sampling, ColorType::Rgb, is_split));
            assert_eq!(
                ProcessingPlan::new(&scan_per_component, &recipe()).unwrap().decoder_name(),
                "jpeg-scaled"
            );
            let [found, expected] =
                [&scan_per_component, &one_scan].map(|file| process(file, &recipe()).unwrap().jpeg);
            assert!(found == expected, "{sampling:?}, {width}×{height}");
        }
    }
}

#[test]
fn cmyk_jpeg_with_a_scan_per_component_is_processed() {
    for colour in [ColorType::Cmyk, ColorType::CmykAsYcck] {
        for sampling in [SamplingFactor::R_4_4_4, SamplingFactor::R_4_2_0] {
            let file = encode_baseline(&test_image(), sampling, colour, true);
            assert_quarters(&file, COLOURS, &format!("{colour:?}, {sampling:?}"));
        }
    }
}

/// The test image as a lossy WebP of 1600×1200 pixels. libwebp wrote the file, because the WebP encoder of
/// the `image` crate is lossless.
const LOSSY_WEBP: &[u8] = include_bytes!("data/quarters.webp");

#[test]
fn lossy_webp_is_processed_and_refused_if_truncated() {
    assert_quarters(LOSSY_WEBP, COLOURS, "lossy WebP");
    let error = process(&LOSSY_WEBP[..LOSSY_WEBP.len() - 50], &recipe()).unwrap_err();
    assert_eq!(error.kind(), "corrupt_image");
    let plan = ProcessingPlan::new(LOSSY_WEBP, &recipe()).unwrap();
    assert_eq!(plan.decoder_name(), if cfg!(feature = "turbo") { "libwebp" } else { "image" });
    assert!(matches!(run_plan(&plan, LOSSY_WEBP, &recipe()).unwrap(), PlanOutcome::Done(_)));
}

#[test]
fn grey_of_8_and_16_bits_is_processed() {
    let levels = [10u8, 90, 170, 250];
    let grey = GrayImage::from_fn(400, 300, |x, y| {
        Luma([levels[usize::from(x >= 200) + 2 * usize::from(y >= 150)]])
    });
    let grey16 = DynamicImage::ImageLuma8(grey.clone()).into_luma16();
    let expected = levels.map(|level| [level; 3]);
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff] {
        assert_quarters(&encode(grey.clone(), format), expected, &format!("8-bit {format:?}"));
    }
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        assert_quarters(&encode(grey16.clone(), format), expected, &format!("16-bit {format:?}"));
    }
}

#[test]
fn colour_of_16_bits_per_channel_is_processed() {
    let colour = DynamicImage::ImageRgb8(test_image());
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        assert_quarters(&encode(colour.to_rgb16(), format), COLOURS, &format!("RGB {format:?}"));
        assert_quarters(&encode(colour.to_rgba16(), format), COLOURS, &format!("RGBA {format:?}"));
    }
}

#[test]
fn cmyk_and_ycck_jpeg_are_processed() {
    // The amount of cyan, magenta or yellow is the difference of red, green or blue from white.
    let inks: Vec<u8> = test_image()
        .pixels()
        .flat_map(|pixel| {
            let [red, green, blue] = pixel.0;
            [255 - red, 255 - green, 255 - blue, 0]
        })
        .collect();
    for colour_type in [ColorType::Cmyk, ColorType::CmykAsYcck] {
        let mut file = Vec::new();
        Encoder::new(&mut file, 97).encode(&inks, 400, 300, colour_type).unwrap();
        assert_quarters(&file, COLOURS, &format!("{colour_type:?}"));
    }
}

#[test]
fn palette_png_of_every_depth_with_transparency_is_processed() {
    let colour = |[red, green, blue]: [u8; 3]| [red, green, blue, 255];
    let palette = [colour(RED), colour(GREEN), colour(BLUE), [0, 0, 0, 0]];
    let expected = [RED, GREEN, BLUE, [255; 3]];
    for bit_depth in [2u8, 4, 8] {
        let pixel = |x: usize, y: usize| u8::from(x >= 200) + 2 * u8::from(y >= 150);
        let pixels_per_byte = usize::from(8 / bit_depth);
        let row = |y: usize| {
            let byte = |index: usize| {
                (0..pixels_per_byte).fold(0u8, |packed, i| {
                    (packed.wrapping_shl(bit_depth.into())) | pixel(index * pixels_per_byte + i, y)
                })
            };
            (0..400 / pixels_per_byte).map(byte).collect::<Vec<u8>>()
        };
        // `palette_png` writes a single deflate block of at most 65,535 bytes, so the image with 8 bits per
        // pixel has a third of the height.
        let rows: Vec<Vec<u8>> = match bit_depth {
            8 => (0..100).map(|y| row(y * 3)).collect(),
            _ => (0..300).map(row).collect(),
        };
        let file = palette_png(400, bit_depth, &rows, &palette);
        let processed = process(&file, &recipe()).unwrap();
        for (found, expected) in quarter_colours(&decode(&processed)).into_iter().zip(expected) {
            assert_near(found, expected, &format!("{bit_depth} bits"));
        }
    }
}

#[test]
fn png_of_1_bit_is_processed() {
    let rows: Vec<Vec<u8>> = (0..300).map(|y| vec![if y < 150 { 0x00 } else { 0xFF }; 50]).collect();
    let file = palette_png(400, 1, &rows, &[[0, 0, 0, 255], [255, 255, 255, 255]]);
    assert_quarters(&file, [[0; 3], [0; 3], [255; 3], [255; 3]], "1 bit");
}

#[test]
fn transparent_pixels_are_blended_with_white() {
    // The opacity of the quarters is 1, a half, a quarter and 0.
    let image = RgbaImage::from_fn(400, 300, |x, y| {
        let alpha = [255, 128, 64, 0][usize::from(x >= 200) + 2 * usize::from(y >= 150)];
        Rgba([200, 0, 0, alpha])
    });
    let expected = [[200, 0, 0], [227, 127, 127], [241, 191, 191], [255, 255, 255]];
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Tiff, ImageFormat::Bmp] {
        assert_quarters(&encode(image.clone(), format), expected, &format!("{format:?}"));
    }
    let grey = image::GrayAlphaImage::from_fn(400, 300, |x, _| LumaA([0, if x < 200 { 255 } else { 0 }]));
    let black_and_white = [[0; 3], [255; 3], [0; 3], [255; 3]];
    assert_quarters(&encode(grey, ImageFormat::Png), black_and_white, "grey with alpha");
    let half_transparent =
        RgbaImage::from_fn(400, 300, |x, _| if x < 200 { Rgba([0, 0, 0, 255]) } else { Rgba([0; 4]) });
    assert_quarters(&encode(half_transparent, ImageFormat::Gif), black_and_white, "GIF");
}

#[test]
fn colours_of_transparent_pixels_do_not_bleed_into_their_neighbours() {
    // White stripes alternate with transparent stripes whose colour is black. The result must be white.
    let stripes = RgbaImage::from_fn(800, 600, |x, _| {
        if x % 2 == 0 { Rgba([255, 255, 255, 255]) } else { Rgba([0, 0, 0, 0]) }
    });
    let processed = process(&encode(stripes, ImageFormat::Png), &recipe()).unwrap();
    assert!(decode(&processed).pixels().all(|pixel| pixel.0.iter().all(|&level| level >= 250)));
}

#[test]
fn first_frame_of_an_animated_gif_is_used() {
    let frame = |colour: [u8; 3]| {
        let [red, green, blue] = colour;
        Frame::new(RgbaImage::from_pixel(40, 30, Rgba([red, green, blue, 255])))
    };
    let mut gif = Vec::new();
    GifEncoder::new(&mut gif).encode_frames([frame(RED), frame(BLUE)]).unwrap();
    let image = decode(&process(&gif, &recipe()).unwrap());
    assert_near(image.get_pixel(20, 15).0, RED, "first frame");
}

#[test]
fn image_with_a_short_side_keeps_its_size() {
    for (width, height) in [(1, 1), (10, 6), (256, 300), (1, 2000), (3, 16_384)] {
        let file = encode(RgbImage::from_pixel(width, height, Rgb(GREEN)), ImageFormat::Png);
        let processed = process(&file, &recipe()).unwrap();
        assert_eq!((processed.width, processed.height), (width, height));
        assert_near(decode(&processed).get_pixel(0, height - 1).0, GREEN, "colour");
    }
}

#[test]
fn same_upload_gives_the_same_bytes() {
    let file = read_sample("chelsea.jpg");
    assert_eq!(process(&file, &recipe()).unwrap().jpeg, process(&file, &recipe()).unwrap().jpeg);
}

#[test]
fn recipe_text_depends_on_size_and_quality_but_not_on_limits() {
    let default = recipe();
    assert_eq!(default.id_text(), "v5 shorter-side=256 filter=lanczos3 jpeg=95 chroma=4:4:4");
    assert_ne!(Recipe { shorter_side: 224, ..default.clone() }.id_text(), default.id_text());
    assert_ne!(Recipe { jpeg_quality: 90, ..default.clone() }.id_text(), default.id_text());
    let mut stricter = default.clone();
    stricter.limits.max_pixels = 1;
    assert_eq!(stricter.id_text(), default.id_text());
}
