//! Compares decoded pixels with libjpeg-turbo's pixels. These tests need the feature `compare`.

use std::fs;

use jpeg_encoder::ColorType;
use jpeg_scaled::Scale;
use proptest::{prelude::*, sample::select, test_runner::TestRunner};
use turbojpeg::{Compressor, Decompressor, Image, PixelFormat, ScalingFactor, Subsamp};

use crate::{
    cmyk::encode_cmyk,
    files::{
        Pixels, TestPicture, decode, proptest_config, test_pictures, usual_picture, with_component_ids,
        without_segment,
    },
    progressive_writer::{scripts, with_progressive_scans},
    reference::{format_line, reference_folder},
    scans::{SAMPLING_FACTORS, encode_without_interleaving, with_scans},
};

/// Decodes a file to RGB with libjpeg-turbo.
fn decode_with_turbo(file: &[u8], scale: Scale) -> Pixels {
    decode_to_format_with_turbo(file, scale, PixelFormat::RGB)
}

/// Decodes a file to pixels of `format` with libjpeg-turbo.
fn decode_to_format_with_turbo(file: &[u8], scale: Scale, format: PixelFormat) -> Pixels {
    let mut decompressor = Decompressor::new().unwrap();
    let factor = ScalingFactor::new(1, scale.denominator() as usize);
    decompressor.set_scaling_factor(factor).unwrap();
    let header = decompressor.read_header(file).unwrap().scaled(factor);
    let (width, height, pitch) = (header.width, header.height, format.size() * header.width);
    let mut pixels = vec![0; pitch * height];
    let output = Image { pixels: &mut pixels[..], width, pitch, height, format };
    decompressor.decompress(file, output).unwrap();
    (u32::try_from(width).unwrap(), u32::try_from(height).unwrap(), pixels)
}

/// Encodes a picture with libjpeg-turbo, which supports more samplings than `jpeg-encoder`.
fn encode_with_turbo(test_picture: &TestPicture, subsampling: Subsamp) -> Vec<u8> {
    let (width, height) = (usize::from(test_picture.width), usize::from(test_picture.height));
    let pixels = test_picture.draw();
    let image = Image { pixels: &pixels[..], width, pitch: 3 * width, height, format: PixelFormat::RGB };
    turbojpeg::compress(image, test_picture.quality.into(), subsampling).unwrap().to_vec()
}

/// Encodes a picture with libjpeg-turbo to a progressive file with optimised tables.
fn encode_progressive_with_turbo(test_picture: &TestPicture, subsampling: Subsamp) -> Vec<u8> {
    let (width, height) = (usize::from(test_picture.width), usize::from(test_picture.height));
    let pixels = test_picture.draw();
    let image = Image { pixels: &pixels[..], width, pitch: 3 * width, height, format: PixelFormat::RGB };
    let mut compressor = Compressor::new().unwrap();
    compressor.set_quality(test_picture.quality.into()).unwrap();
    compressor.set_subsamp(subsampling).unwrap();
    compressor.set_progressive(true).unwrap();
    compressor.compress_to_vec(image).unwrap()
}

/// Checks that both decoders return the same pixels at every scale.
fn check_equal_to_turbo(file: &[u8]) -> Result<(), TestCaseError> {
    for scale in Scale::ALL {
        prop_assert!(decode(file, scale).unwrap() == decode_with_turbo(file, scale), "{:?}", scale);
    }
    Ok(())
}

#[test]
fn any_picture_decodes_to_the_pixels_of_libjpeg_turbo() {
    TestRunner::new(proptest_config(2000))
        .run(&test_pictures(), |test_picture| check_equal_to_turbo(&test_picture.encode()))
        .unwrap();
}

#[test]
fn any_progressive_picture_decodes_to_the_pixels_of_libjpeg_turbo() {
    TestRunner::new(proptest_config(2000))
        .run(&(test_pictures(), scripts(3), scripts(1)), |(test_picture, scans, grey_scans)| {
            let scans = if test_picture.sampling.is_some() { &scans } else { &grey_scans };
            check_equal_to_turbo(&with_progressive_scans(&test_picture.encode_in_one_scan(), scans))
        })
        .unwrap();
}

#[test]
fn any_progressive_picture_of_libjpeg_turbo_decodes_to_its_pixels() {
    TestRunner::new(proptest_config(2000))
        .run(&(test_pictures(), samplings()), |(test_picture, sampling)| {
            check_equal_to_turbo(&encode_progressive_with_turbo(&test_picture, sampling))
        })
        .unwrap();
}

#[test]
fn any_cmyk_picture_decodes_to_the_samples_of_libjpeg_turbo() {
    let factors = select(vec![(1, 1), (2, 1), (1, 2), (2, 2)]);
    TestRunner::new(proptest_config(500))
        .run(&(test_pictures(), factors, any::<bool>()), |(test_picture, factors, is_progressive)| {
            let file = encode_cmyk(&test_picture, ColorType::Cmyk, factors, is_progressive);
            for scale in Scale::ALL {
                let expected = decode_to_format_with_turbo(&file, scale, PixelFormat::CMYK);
                prop_assert!(decode(&file, scale).unwrap() == expected, "{:?}", scale);
            }
            Ok(())
        })
        .unwrap();
}

/// Generates each sampling that libjpeg-turbo writes.
fn samplings() -> impl Strategy<Value = Subsamp> {
    select(vec![
        Subsamp::None,
        Subsamp::Sub2x1,
        Subsamp::Sub2x2,
        Subsamp::Sub1x2,
        Subsamp::Sub4x1,
        Subsamp::Sub1x4,
        Subsamp::Gray,
    ])
}

#[test]
fn any_sampling_decodes_to_the_pixels_of_libjpeg_turbo() {
    TestRunner::new(proptest_config(2000))
        .run(&(test_pictures(), samplings()), |(test_picture, sampling)| {
            let file = encode_with_turbo(&test_picture, sampling);
            check_equal_to_turbo(&file)?;
            if let Some(scans) = test_picture.scans
                && sampling != Subsamp::Gray
            {
                check_equal_to_turbo(&with_scans(&file, scans, test_picture.restart_interval))?;
            }
            if sampling == Subsamp::None {
                check_equal_to_turbo(&with_component_ids(&without_segment(&file, 0xE0), *b"RGB"))?;
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn any_file_with_a_scan_per_component_decodes_to_the_pixels_of_libjpeg_turbo() {
    TestRunner::new(proptest_config(1000))
        .run(&(test_pictures(), select(&SAMPLING_FACTORS[..])), |(test_picture, factors)| {
            check_equal_to_turbo(&encode_without_interleaving(&test_picture, factors))
        })
        .unwrap();
}

/// Returns the name and the contents of each reference file.
fn reference_files() -> Vec<(&'static str, Vec<u8>)> {
    let test_picture = usual_picture();
    let coarse_picture = TestPicture { width: 83, height: 50, quality: 40, noise: 90, ..usual_picture() };
    let sampled =
        |across, down| TestPicture { sampling: Some((across, down)), ..test_picture.clone() }.encode();
    let full_sampling = encode_with_turbo(&test_picture, Subsamp::None);
    vec![
        ("420.jpg", test_picture.encode()),
        ("420-coarse.jpg", coarse_picture.encode()),
        ("420-fine.jpg", TestPicture { quality: 100, noise: 255, ..test_picture.clone() }.encode()),
        ("420-scans.jpg", TestPicture { scans: Some(&[&[1], &[0, 2]]), ..test_picture.clone() }.encode()),
        ("420-progressive.jpg", encode_progressive_with_turbo(&test_picture, Subsamp::Sub2x2)),
        ("420-restarts.jpg", TestPicture { restart_interval: 2, ..test_picture.clone() }.encode()),
        ("420-tiny.jpg", TestPicture { width: 3, height: 5, ..test_picture.clone() }.encode()),
        ("411.jpg", encode_with_turbo(&test_picture, Subsamp::Sub4x1)),
        ("422.jpg", sampled(2, 1)),
        ("440.jpg", sampled(1, 2)),
        ("444-progressive.jpg", encode_progressive_with_turbo(&test_picture, Subsamp::None)),
        ("444.jpg", sampled(1, 1)),
        ("grey-progressive.jpg", encode_progressive_with_turbo(&test_picture, Subsamp::Gray)),
        ("grey.jpg", TestPicture { sampling: None, ..test_picture.clone() }.encode()),
        ("rgb.jpg", with_component_ids(&without_segment(&full_sampling, 0xE0), *b"RGB")),
    ]
}

#[test]
fn recorded_hashes_match_libjpeg_turbo() {
    let mut lines = String::new();
    let mut names: Vec<_> = reference_files().into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    for name in names {
        let file = fs::read(reference_folder().join(name)).unwrap();
        for scale in Scale::ALL {
            let (width, height, rgb) = decode_with_turbo(&file, scale);
            lines += &format_line(name, scale, width, height, &rgb);
        }
    }
    assert_eq!(lines, fs::read_to_string(reference_folder().join("pixels.tsv")).unwrap());
}

#[test]
#[ignore = "writes the files of tests/reference/"]
fn write_reference() {
    fs::create_dir_all(reference_folder()).unwrap();
    let mut files = reference_files();
    files.sort_unstable();
    let mut lines = String::new();
    for (name, file) in files {
        fs::write(reference_folder().join(name), &file).unwrap();
        for scale in Scale::ALL {
            let (width, height, rgb) = decode_with_turbo(&file, scale);
            lines += &format_line(name, scale, width, height, &rgb);
        }
    }
    fs::write(reference_folder().join("pixels.tsv"), lines).unwrap();
}
