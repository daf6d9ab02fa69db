//! Tests that random bytes and damaged files cause neither a panic nor an undocumented status.

use std::{io::Cursor, sync::Arc};

use image::{DynamicImage, ImageFormat};
use preprocess::{Settings, image::process};
use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, TestRunner},
};
use tokio::runtime::Runtime;

use crate::support::{TestApp, file_form, read_sample};

/// Documented statuses of a request with one file. None of them is a 5xx status.
const DOCUMENTED_STATUSES: [u16; 5] = [200, 400, 413, 415, 422];

fn proptest_config(case_count: u32) -> Config {
    Config { cases: case_count, failure_persistence: None, ..Config::default() }
}

/// Returns the sample photos, and a small image in every format.
fn valid_files() -> Vec<Arc<[u8]>> {
    let photos = ["coffee.jpg", "chelsea.jpg", "rocket.jpg", "chelsea_224.png"].map(read_sample);
    let small =
        DynamicImage::from(image::load_from_memory(&photos[0]).unwrap().thumbnail(40, 40).into_rgb8());
    let formats = [
        ImageFormat::Jpeg,
        ImageFormat::Png,
        ImageFormat::WebP,
        ImageFormat::Gif,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
    ];
    let encoded = formats.map(|format| {
        let mut file = Cursor::new(Vec::new());
        small.write_to(&mut file, format).unwrap();
        file.into_inner()
    });
    photos.into_iter().chain(encoded).map(Arc::from).collect()
}

/// Generates valid files with some bytes overwritten. Some of the files are also truncated.
fn damaged_file() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..24);
    // Additional changes hit the first 200 bytes, because the header influences the decoders most.
    let header_changes = prop::collection::vec((0..200usize, any::<u8>()), 0..8);
    (select(valid_files()), changes, header_changes, prop::option::of(any::<Index>())).prop_map(
        |(file, changes, header_changes, length)| {
            let mut file = file.to_vec();
            for (position, byte) in changes {
                let index = position.index(file.len());
                file[index] = byte;
            }
            for (index, byte) in header_changes {
                if let Some(old) = file.get_mut(index) {
                    *old = byte;
                }
            }
            if let Some(length) = length {
                file.truncate(length.index(file.len()));
            }
            file
        },
    )
}

/// Generates random bytes after the signature of a format, and damaged files.
fn any_file() -> impl Strategy<Value = Vec<u8>> {
    let signature = select(vec![
        &b""[..],
        b"\xFF\xD8\xFF",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM",
        b"RIFF\0\0\0\0WEBPVP8X",
        b"II*\0",
        b"MM\0*",
    ]);
    let bytes = prop::collection::vec(any::<u8>(), 0..2048);
    let random = (signature, bytes).prop_map(|(signature, bytes)| [signature, &bytes].concat());
    prop_oneof![random, damaged_file()]
}

#[test]
fn processing_any_file_gives_an_image_or_an_error() {
    let recipe = Settings::default().recipe();
    TestRunner::new(proptest_config(192))
        .run(&any_file(), |file| {
            if let Ok(processed) = process(&file, &recipe) {
                prop_assert!(processed.width >= 1 && processed.height >= 1);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn post_of_any_file_has_a_documented_status() {
    let runtime = Runtime::new().unwrap();
    let app = runtime.block_on(TestApp::start(Settings::default()));
    let content_type = select(vec![
        "image/jpeg",
        "application/octet-stream",
        "multipart/form-data; boundary=b",
        "multipart/form-data",
        "text/plain",
    ]);
    TestRunner::new(proptest_config(96))
        .run(&(content_type, any_file()), |(content_type, file)| {
            let raw_status = runtime.block_on(app.post(content_type, file.clone())).status().as_u16();
            prop_assert!(
                DOCUMENTED_STATUSES.contains(&raw_status),
                "{raw_status} for a body of the type {content_type}"
            );
            let form_status =
                runtime.block_on(app.post_form(file_form([("a", file.clone())]))).status().as_u16();
            prop_assert!(
                DOCUMENTED_STATUSES.contains(&form_status),
                "{form_status} for a form with one file"
            );
            let two_files_status = runtime
                .block_on(app.post_form(file_form([("a", file.clone()), ("b", file)])))
                .status()
                .as_u16();
            prop_assert!(
                [200, 207].contains(&two_files_status),
                "{two_files_status} for a form with two files"
            );
            Ok(())
        })
        .unwrap();
}

#[test]
fn post_of_any_form_has_a_documented_status() {
    let runtime = Runtime::new().unwrap();
    let app = runtime.block_on(TestApp::start(Settings::default()));
    let piece = prop_oneof![
        select(vec![
            "--b\r\n",
            "--b--",
            "\r\n\r\n",
            "Content-Disposition: form-data; name=\"file\"",
            "\r\n",
            "--b"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..64),
    ];
    let body = prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat());
    TestRunner::new(proptest_config(128))
        .run(&body, |body| {
            let response = runtime.block_on(app.post("multipart/form-data; boundary=b", body));
            let status = response.status().as_u16();
            prop_assert!(DOCUMENTED_STATUSES.contains(&status) || status == 207, "{status}");
            Ok(())
        })
        .unwrap();
}
