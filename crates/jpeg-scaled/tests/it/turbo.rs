//! Side by side with libjpeg-turbo itself, with the feature `compare`.

use std::fs;

use jpeg_scaled::Scale;
use proptest::{prelude::*, test_runner::TestRunner};
use turbojpeg::{Decompressor, Image, PixelFormat, ScalingFactor, Subsamp};

use crate::{
    exact::{folder, line},
    files::{Pixels, Recipe, config, decode, recipes, renamed, usual_recipe, without},
};

/// What libjpeg-turbo makes of a file.
fn turbo(file: &[u8], scale: Scale) -> Pixels {
    let mut decompressor = Decompressor::new().unwrap();
    let factor = ScalingFactor::new(1, scale.denominator() as usize);
    decompressor.set_scaling_factor(factor).unwrap();
    let header = decompressor.read_header(file).unwrap().scaled(factor);
    let (width, height, pitch) = (header.width, header.height, 3 * header.width);
    let mut pixels = vec![0; pitch * height];
    let output = Image { pixels: &mut pixels[..], width, pitch, height, format: PixelFormat::RGB };
    decompressor.decompress(file, output).unwrap();
    (u32::try_from(width).unwrap(), u32::try_from(height).unwrap(), pixels)
}

/// The file of a recipe, with libjpeg-turbo's encoder, which has more samplings.
fn encoded_by_turbo(recipe: &Recipe, subsampling: Subsamp) -> Vec<u8> {
    let (width, height) = (usize::from(recipe.width), usize::from(recipe.height));
    let pixels = recipe.pixels();
    let image = Image { pixels: &pixels[..], width, pitch: 3 * width, height, format: PixelFormat::RGB };
    turbojpeg::compress(image, recipe.quality.into(), subsampling).unwrap().to_vec()
}

fn assert_equal(file: &[u8]) -> Result<(), TestCaseError> {
    for scale in Scale::ALL {
        prop_assert!(decode(file, scale).unwrap() == turbo(file, scale), "{:?}", scale);
    }
    Ok(())
}

#[test]
fn any_picture_is_that_of_libjpeg_turbo() {
    TestRunner::new(config(2000)).run(&recipes(), |recipe| assert_equal(&recipe.encode())).unwrap();
}

#[test]
fn any_sampling_is_that_of_libjpeg_turbo() {
    let samplings = prop::sample::select(vec![
        Subsamp::None,
        Subsamp::Sub2x1,
        Subsamp::Sub2x2,
        Subsamp::Sub1x2,
        Subsamp::Sub4x1,
        Subsamp::Sub1x4,
        Subsamp::Gray,
    ]);
    TestRunner::new(config(2000))
        .run(&(recipes(), samplings), |(recipe, sampling)| {
            let file = encoded_by_turbo(&recipe, sampling);
            assert_equal(&file)?;
            if sampling == Subsamp::None {
                assert_equal(&renamed(&without(&file, 0xE0), *b"RGB"))?;
            }
            Ok(())
        })
        .unwrap();
}

/// The files of the reference by name.
fn reference() -> Vec<(&'static str, Vec<u8>)> {
    let recipe = usual_recipe();
    let other = Recipe { width: 83, height: 50, quality: 40, noise: 90, ..usual_recipe() };
    let sampled = |across, down| Recipe { sampling: Some((across, down)), ..recipe.clone() }.encode();
    let rgb = encoded_by_turbo(&recipe, Subsamp::None);
    vec![
        ("420.jpg", recipe.encode()),
        ("420-coarse.jpg", other.encode()),
        ("420-fine.jpg", Recipe { quality: 100, noise: 255, ..recipe.clone() }.encode()),
        ("420-restarts.jpg", Recipe { restart_interval: 2, ..recipe.clone() }.encode()),
        ("420-tiny.jpg", Recipe { width: 3, height: 5, ..recipe.clone() }.encode()),
        ("411.jpg", encoded_by_turbo(&recipe, Subsamp::Sub4x1)),
        ("422.jpg", sampled(2, 1)),
        ("440.jpg", sampled(1, 2)),
        ("444.jpg", sampled(1, 1)),
        ("grey.jpg", Recipe { sampling: None, ..recipe.clone() }.encode()),
        ("rgb.jpg", renamed(&without(&rgb, 0xE0), *b"RGB")),
    ]
}

#[test]
fn the_reference_is_what_libjpeg_turbo_makes() {
    let mut lines = String::new();
    let mut names: Vec<_> = reference().into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    for name in names {
        let file = fs::read(folder().join(name)).unwrap();
        for scale in Scale::ALL {
            let (width, height, rgb) = turbo(&file, scale);
            lines += &line(name, scale, width, height, &rgb);
        }
    }
    assert_eq!(lines, fs::read_to_string(folder().join("pixels.tsv")).unwrap());
}

#[test]
#[ignore = "it writes tests/reference/ anew"]
fn write_the_reference() {
    fs::create_dir_all(folder()).unwrap();
    let mut files = reference();
    files.sort_unstable();
    let mut lines = String::new();
    for (name, file) in files {
        fs::write(folder().join(name), &file).unwrap();
        for scale in Scale::ALL {
            let (width, height, rgb) = turbo(&file, scale);
            lines += &line(name, scale, width, height, &rgb);
        }
    }
    fs::write(folder().join("pixels.tsv"), lines).unwrap();
}
