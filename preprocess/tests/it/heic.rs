//! Tests of HEIC files, which libheif wrote.

use preprocess::{
    Settings,
    image::{Format, Limits, ProcessingPlan, Recipe, inspect, process},
};

use crate::{
    support::{TestApp, read_problem, read_sample},
    test_image::{COLOURS_OF_FILES, assert_near, assert_processed, decode, quarter_colours, recipe},
};

/// Size of the small pictures.
const SIZE: (u32, u32) = (160, 120);

#[test]
fn every_subsampling_depth_and_range_gives_the_same_colours() {
    for (file, description) in [
        (&include_bytes!("data/heic_444.heic")[..], "4:4:4"),
        (include_bytes!("data/heic_422.heic"), "4:2:2"),
        (include_bytes!("data/heic_10_bit.heic"), "10 bits"),
        (include_bytes!("data/heic_12_bit_422.heic"), "12 bits, 4:2:2"),
        (include_bytes!("data/heic_limited_709.heic"), "limited range, BT.709"),
        (include_bytes!("data/heic_tiles_of_64.heic"), "tiles of 64×64"),
        (include_bytes!("data/heic_thumbnail.heic"), "with a thumbnail"),
        (include_bytes!("data/heic_second_picture.heic"), "the second of two pictures is the primary one"),
    ] {
        assert_processed(file, SIZE, COLOURS_OF_FILES, description);
    }
    // The coded picture has one column and one row more, which are cropped.
    assert_processed(include_bytes!("data/heic_odd_size.heic"), (161, 121), COLOURS_OF_FILES, "odd size");
}

#[test]
fn grey_picture_keeps_its_levels() {
    let levels = [10, 90, 170, 250].map(|level| [level; 3]);
    assert_processed(include_bytes!("data/heic_grey.heic"), SIZE, levels, "grey");
}

#[test]
fn transparent_pixels_are_drawn_on_white() {
    // The quarters have the opacities 255, 64, 128 and 0.
    let expected = [[200, 30, 40], [199, 236, 206], [147, 157, 227], [255, 255, 255]];
    assert_processed(include_bytes!("data/heic_alpha.heic"), SIZE, expected, "separate alpha");
    assert_processed(include_bytes!("data/heic_premultiplied.heic"), SIZE, expected, "multiplied alpha");
    assert_processed(include_bytes!("data/heic_sequence_alpha.heic"), SIZE, expected, "alpha track");
}

#[test]
fn video_is_refused_although_its_first_picture_could_be_decoded() {
    let mut video = include_bytes!("data/heic_sequence_alpha.heic").to_vec();
    // The main brand, its version, and the compatible brands.
    video[8..28].copy_from_slice(b"isom\0\0\0\0isommp42iso2");
    let error = process(&video, &recipe()).unwrap_err();
    assert_eq!(error.kind(), "unsupported_format", "{error:?}");
}

#[test]
fn display_p3_is_converted_to_srgb() {
    assert_processed(include_bytes!("data/heic_p3_profile.heic"), SIZE, COLOURS_OF_FILES, "ICC profile");
    assert_processed(include_bytes!("data/heic_p3_nclx.heic"), SIZE, COLOURS_OF_FILES, "nclx");
}

#[test]
fn picture_is_turned_once_although_its_exif_states_the_orientation_too() {
    for (orientation, file) in [
        (2, &include_bytes!("data/heic_orientation_2.heic")[..]),
        (3, include_bytes!("data/heic_orientation_3.heic")),
        (4, include_bytes!("data/heic_orientation_4.heic")),
        (5, include_bytes!("data/heic_orientation_5.heic")),
        (6, include_bytes!("data/heic_orientation_6_small.heic")),
        (7, include_bytes!("data/heic_orientation_7.heic")),
        (8, include_bytes!("data/heic_orientation_8.heic")),
    ] {
        assert_processed(file, SIZE, COLOURS_OF_FILES, &format!("orientation {orientation}"));
    }
}

#[test]
fn photo_equals_the_jpeg_that_it_was_made_from() {
    let expected = quarter_colours(&decode(&process(&read_sample("coffee.jpg"), &recipe()).unwrap()));
    for (file, description) in [
        (&include_bytes!("data/heic_8bit.heic")[..], "one picture"),
        (include_bytes!("data/heic_grid_tiles.heic"), "tiles of 256×256"),
        (include_bytes!("data/heic_orientation_6.heic"), "stored sideways"),
    ] {
        let processed = process(file, &recipe()).unwrap();
        assert_eq!((processed.width, processed.height), (384, 256), "{description}");
        for (found, expected) in quarter_colours(&decode(&processed)).into_iter().zip(expected) {
            assert_near(found, expected, description);
        }
    }
}

#[test]
fn unsupported_kind_of_heic_is_named() {
    let pq = include_bytes!("data/heic_pq.heic");
    let mut jpeg = include_bytes!("data/heic_444.heic").to_vec();
    let item = jpeg.windows(4).position(|window| window == b"hvc1").unwrap();
    jpeg[item..item + 4].copy_from_slice(b"jpeg");
    for (file, name) in [(&pq[..], "PQ"), (&jpeg, "codec `jpeg`")] {
        let error = process(file, &recipe()).unwrap_err();
        assert_eq!(error.kind(), "unsupported_format", "{error:?}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn parts_may_have_three_times_the_pixels_of_the_limit() {
    let file = include_bytes!("data/heic_alpha.heic");
    // The picture and its alpha channel have 160×120 pixels each.
    let recipe_with = |max_pixels| Recipe { limits: Limits { max_pixels, ..recipe().limits }, ..recipe() };
    assert_eq!(inspect(file, &recipe_with(19_200).limits).unwrap().format(), Format::Heic);
    let tiles = include_bytes!("data/heic_15_tiles_of_16_mp.heic");
    let error = process(tiles, &recipe_with(80_000_000)).unwrap_err();
    assert_eq!(error.kind(), "too_many_pixels");
    assert!(error.to_string().contains("251658240 pixels"), "{error}");
}

#[test]
fn cost_of_tiles_is_less_than_the_cost_of_one_large_picture() {
    let bytes = |file| ProcessingPlan::new(file, &recipe()).unwrap().cost().bytes;
    let [tiles, whole] =
        [&include_bytes!("data/heic_grid_tiles.heic")[..], include_bytes!("data/heic_8bit.heic")].map(bytes);
    assert!(tiles < whole, "{tiles} {whole}");
}

#[tokio::test]
async fn small_file_with_too_many_coded_pixels_is_refused_with_413() {
    let app = TestApp::start(Settings::default()).await;
    let tiles = &include_bytes!("data/heic_15_tiles_of_16_mp.heic")[..];
    let (status, problem) = read_problem(app.post("image/heic", tiles).await).await;
    assert_eq!((status, problem["kind"].as_str()), (413, Some("too_many_pixels")));
}
