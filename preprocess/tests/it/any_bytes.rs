//! Whatever the bytes: no panic, and an answer that is documented.

use std::{io::Cursor, sync::Arc};

use image::{DynamicImage, ImageFormat};
use preprocess::{Settings, image::process};
use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, TestRunner},
};
use tokio::runtime::Runtime;

use crate::support::{TestApp, form, sample};

/// Statuses that a client can cause. None of them is 5xx.
const DOCUMENTED: [u16; 5] = [200, 400, 413, 415, 422];

fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// The sample photos, and a small picture in every format.
fn good_files() -> Vec<Arc<[u8]>> {
    let photos = ["coffee.jpg", "chelsea.jpg", "rocket.jpg", "chelsea_224.png"].map(sample);
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
    let made = formats.map(|format| {
        let mut file = Cursor::new(Vec::new());
        small.write_to(&mut file, format).unwrap();
        file.into_inner()
    });
    photos.into_iter().chain(made).map(Arc::from).collect()
}

/// A good file with some bytes overwritten, and perhaps cut off.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..24);
    // Headers are where decoders decide; half of the changes go there.
    let in_header = prop::collection::vec((0..200usize, any::<u8>()), 0..8);
    (select(good_files()), changes, in_header, prop::option::of(any::<Index>())).prop_map(
        |(file, changes, in_header, cut)| {
            let mut file = file.to_vec();
            for (at, byte) in changes {
                let at = at.index(file.len());
                file[at] = byte;
            }
            for (at, byte) in in_header {
                if let Some(old) = file.get_mut(at) {
                    *old = byte;
                }
            }
            if let Some(cut) = cut {
                file.truncate(cut.index(file.len()));
            }
            file
        },
    )
}

fn any_file() -> impl Strategy<Value = Vec<u8>> {
    let magic = select(vec![
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
    let random = (magic, bytes).prop_map(|(magic, bytes)| [magic, &bytes].concat());
    prop_oneof![random, damaged()]
}

#[test]
fn process_never_panics() {
    let recipe = Settings::default().recipe();
    TestRunner::new(config(192))
        .run(&any_file(), |file| {
            if let Ok(picture) = process(&file, &recipe) {
                prop_assert!(picture.width >= 1 && picture.height >= 1);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn post_answers_what_is_documented() {
    let runtime = Runtime::new().unwrap();
    let app = runtime.block_on(TestApp::start(Settings::default()));
    let content_type = select(vec![
        "image/jpeg",
        "application/octet-stream",
        "multipart/form-data; boundary=b",
        "multipart/form-data",
        "text/plain",
    ]);
    TestRunner::new(config(96))
        .run(&(content_type, any_file()), |(content_type, file)| {
            let raw = runtime.block_on(app.post(content_type, file.clone())).status().as_u16();
            prop_assert!(DOCUMENTED.contains(&raw), "{raw} for a body of {content_type}");
            let one = runtime.block_on(app.post_form(form([("a", file.clone())]))).status().as_u16();
            prop_assert!(DOCUMENTED.contains(&one), "{one} for a form");
            let two =
                runtime.block_on(app.post_form(form([("a", file.clone()), ("b", file)]))).status().as_u16();
            prop_assert!([200, 207].contains(&two), "{two} for a form of two");
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_form_of_any_bytes_is_answered() {
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
    TestRunner::new(config(128))
        .run(&body, |body| {
            let response = runtime.block_on(app.post("multipart/form-data; boundary=b", body));
            let status = response.status().as_u16();
            prop_assert!(DOCUMENTED.contains(&status) || status == 207, "{status}");
            Ok(())
        })
        .unwrap();
}
