//! Tests of baseline JPEGs with a scan per component, and of CMYK.

use super::*;

/// Encodes `picture` as a baseline JPEG. With `has_scan_per_component`, each component has a scan of its
/// own.
fn encode_baseline(
    picture: &RgbImage,
    sampling: jpeg_encoder::SamplingFactor,
    colour: jpeg_encoder::ColorType,
    has_scan_per_component: bool,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 95);
    encoder.set_sampling_factor(sampling);
    encoder.set_optimized_huffman_tables(has_scan_per_component);
    let (width, height) = (picture.width().try_into().unwrap(), picture.height().try_into().unwrap());
    let pixels = match colour {
        jpeg_encoder::ColorType::Rgb => picture.as_raw().clone(),
        // No black ink.
        _ => picture.pixels().flat_map(|pixel| [255 - pixel[0], 255 - pixel[1], 255 - pixel[2], 0]).collect(),
    };
    encoder.encode(&pixels, width, height, colour).unwrap();
    bytes
}

fn average_difference(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum: u32 = a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
    f64::from(sum) / a.len() as f64
}

#[test]
fn jpeg_with_a_scan_per_component_gives_the_crop_of_the_same_coefficients_in_one_scan() {
    use jpeg_encoder::{ColorType::Rgb, SamplingFactor};
    let read = |path: &str| std::fs::read(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let photo = read("samples/coffee.jpg");
    let crop = decode_crop(&photo).unwrap();
    let in_scans = read("preprocess/tests/it/data/jpeg_420_a_scan_per_component.jpg");
    let difference = average_difference(decode_crop(&in_scans).unwrap().bytes(), crop.bytes());
    // The quality of the file is lower than that of the sample photo.
    assert!(difference < 3.0, "{difference} levels");

    let photo = image::load_from_memory(&photo).unwrap();
    for (width, height) in [(600, 400), (397, 301), (256, 256), (37, 51)] {
        let photo = photo.resize_exact(width, height, image::imageops::FilterType::Triangle).into_rgb8();
        for sampling in [
            SamplingFactor::R_4_4_4,
            SamplingFactor::R_4_2_2,
            SamplingFactor::R_4_4_0,
            SamplingFactor::R_4_2_0,
        ] {
            let [one_scan, scan_per_component] = [false, true]
                .map(|is_split| decode_crop(&encode_baseline(&photo, sampling, Rgb, is_split)).unwrap());
            assert!(one_scan == scan_per_component, "{sampling:?} {width}×{height}");
        }
    }
}

#[test]
fn jpeg_that_lacks_a_scan_or_repeats_one_is_refused() {
    use jpeg_encoder::{ColorType::Rgb, SamplingFactor::R_4_2_0};
    let picture = draw_gradient(300, 256);
    let file = encode_baseline(&picture, R_4_2_0, Rgb, true);
    decode_crop(&file).unwrap();
    let scan_starts: Vec<usize> =
        (0..file.len()).filter(|&start| file[start..].starts_with(&[0xFF, 0xDA])).collect();
    let end = file.len() - 2;
    let with_inserted =
        |position: usize, bytes: &[u8]| [&file[..position], bytes, &file[position..]].concat();
    let interleaved = encode_baseline(&picture, R_4_2_0, Rgb, false);
    let last_scan = &file[scan_starts[2]..];
    for (case, file) in [
        ("a component scanned twice", with_inserted(end, &file[scan_starts[2]..end])),
        ("no scan but the first", [&file[..scan_starts[1]], &[0xFF, 0xD9]].concat()),
        ("a missing scan", [&file[..scan_starts[2]], &[0xFF, 0xD9]].concat()),
        ("a truncated scan", [&file[..usize::midpoint(scan_starts[2], end)], &[0xFF, 0xD9]].concat()),
        ("a scan after all components", [&interleaved[..interleaved.len() - 2], last_scan].concat()),
    ] {
        let refused = decode_crop(&file);
        assert!(matches!(refused, Err(ImageError::NotAnImage(_))), "{case}: {:?}", refused.is_ok());
    }
    for (case, file) in [
        ("a byte between segments", with_inserted(20, &[0])),
        ("a byte between scans", with_inserted(scan_starts[1], &[0])),
    ] {
        assert!(decode_crop(&file).is_ok(), "{case}");
    }
}

#[test]
fn cmyk_jpeg_has_the_colours_of_its_inks() {
    use jpeg_encoder::{
        ColorType::{Cmyk, CmykAsYcck},
        SamplingFactor::{R_4_2_0, R_4_4_4},
    };
    let picture = draw_gradient(300, 256);
    let expected = decode_crop(&encode_png(&picture.clone().into())).unwrap();
    for (sampling, colour) in [(R_4_4_4, Cmyk), (R_4_4_4, CmykAsYcck), (R_4_2_0, Cmyk), (R_4_2_0, CmykAsYcck)]
    {
        for has_scan_per_component in [false, true] {
            let crop =
                decode_crop(&encode_baseline(&picture, sampling, colour, has_scan_per_component)).unwrap();
            assert!(average_difference(crop.bytes(), expected.bytes()) < 3.0, "{sampling:?} {colour:?}");
        }
    }
}
