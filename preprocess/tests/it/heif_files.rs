//! Assertions on HEIC and AVIF files.

use preprocess::image::process;

use crate::{
    support::{TestApp, read_problem, read_sample},
    test_image::{COLOURS_OF_FILES, assert_near, assert_processed, decode, quarter_colours, recipe},
};

/// Size of the small pictures.
pub(crate) const SIZE: (u32, u32) = (160, 120);

/// A file, and what is special about it.
type File<'a> = (&'a [u8], &'a str);

/// Asserts that every file shows the four colours in the size [`SIZE`].
#[track_caller]
pub(crate) fn assert_colours(files: &[File<'_>]) {
    for (file, description) in files {
        assert_processed(file, SIZE, COLOURS_OF_FILES, description);
    }
}

/// Asserts that every file shows the four levels of grey.
#[track_caller]
pub(crate) fn assert_grey_levels(files: &[File<'_>]) {
    let levels = [10, 90, 170, 250].map(|level| [level; 3]);
    for (file, description) in files {
        assert_processed(file, SIZE, levels, description);
    }
}

/// Asserts that every file shows the four colours on white. The quarters have the opacities 255, 64, 128 and 0.
#[track_caller]
pub(crate) fn assert_drawn_on_white(files: &[File<'_>]) {
    let expected = [[200, 30, 40], [199, 236, 206], [147, 157, 227], [255, 255, 255]];
    for (file, description) in files {
        assert_processed(file, SIZE, expected, description);
    }
}

/// Asserts that each file, which is stored with one of the orientations 2 to 8, is turned upright.
#[track_caller]
pub(crate) fn assert_upright(files: [&[u8]; 7]) {
    for (orientation, file) in (2..).zip(files) {
        assert_processed(file, SIZE, COLOURS_OF_FILES, &format!("orientation {orientation}"));
    }
}

/// Asserts that every file shows the photo `coffee.jpg`.
#[track_caller]
pub(crate) fn assert_equals_photo(files: &[File<'_>]) {
    let expected = quarter_colours(&decode(&process(&read_sample("coffee.jpg"), &recipe()).unwrap()));
    for (file, description) in files {
        let processed = process(file, &recipe()).unwrap();
        assert_eq!((processed.width, processed.height), (384, 256), "{description}");
        for (found, expected) in quarter_colours(&decode(&processed)).into_iter().zip(expected) {
            assert_near(found, expected, description);
        }
    }
}

/// Asserts that every file is refused as unsupported, with a text that contains its description.
#[track_caller]
pub(crate) fn assert_unsupported(files: &[File<'_>]) {
    for (file, name) in files {
        let error = process(file, &recipe()).unwrap_err();
        assert_eq!(error.kind(), "unsupported_format", "{error:?}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

/// Asserts that a file is refused because its parts have too many pixels.
pub(crate) async fn assert_too_many_pixels(app: &TestApp, content_type: &str, file: &'static [u8]) {
    let (status, problem) = read_problem(app.post(content_type, file).await).await;
    assert_eq!((status, problem["kind"].as_str()), (413, Some("too_many_pixels")));
}
