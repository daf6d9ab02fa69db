//! Tests of refused uploads, and of the problem details in the responses.

use image::{DynamicImage, ImageFormat, RgbImage};
use preprocess::{
    Settings,
    image::{Limits, inspect, process},
};

use crate::{
    hand_made::png_header_only,
    support::{TestApp, file_form, read_json, read_problem, read_sample, without_avif},
    test_image::recipe,
};

#[track_caller]
fn assert_refused(file: &[u8], kind: &str) {
    match process(file, &recipe()) {
        Ok(_) => panic!("expected {kind}, but the file was accepted"),
        Err(error) => assert_eq!(error.kind(), kind, "{error:?}"),
    }
}

#[test]
fn bytes_of_no_known_format_are_refused_as_not_an_image() {
    for file in [&b"hello, world"[..], b"", b"\xFF", b"GIF", b"{}", &[0; 100]] {
        assert_refused(file, "not_an_image");
    }
}

#[test]
fn image_of_a_format_that_is_not_accepted_is_refused_as_unsupported() {
    for file in [
        &b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"[..],
        b"<?xml version=\"1.0\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\"/>",
        b"\0\0\x01\0\x01\0",
        b"%PDF-1.7",
        b"II+\0\x08\0\0\0",
        b"\0\0\0\x0CJXL \r\n\x87\n",
    ] {
        assert_refused(file, "unsupported_format");
    }
}

#[test]
fn header_without_a_size_is_refused_as_corrupt() {
    for file in [
        &b"\xFF\xD8\xFF\xE0"[..],
        b"\xFF\xD8\xFF\xDA\0\x08",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a\x01",
        b"GIF89a\0\0\x01\0",
        b"BM",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"RIFF\0\0\0\0WEBPABCD\0\0\0\0\0\0\0\0",
        b"II*\0\xFF\xFF\xFF\xFF",
        b"MM\0*\0\0\0\x08\0\0",
    ] {
        assert_refused(file, "corrupt_image");
    }
}

#[test]
fn truncated_jpeg_is_refused_and_trailing_bytes_are_ignored() {
    let whole = read_sample("rocket.jpg");
    for length in [whole.len() / 2, whole.len() - 1000, whole.len() - 20] {
        assert_refused(&whole[..length], "corrupt_image");
        assert_refused(&[&whole[..length], b"\xFF\xD9"].concat(), "corrupt_image");
    }
    // Some phones write a trailer in place of the end marker.
    let without_end = &whole[..whole.len() - 2];
    for trailer in [&b""[..], b"a trailer", &whole, b"\xFF\xD9 a film"] {
        let file = [without_end, trailer].concat();
        process(&file, &recipe()).unwrap();
    }
}

#[test]
fn truncated_file_of_any_other_format_is_refused_as_corrupt() {
    let image =
        DynamicImage::ImageRgb8(image::load_from_memory(&read_sample("chelsea.jpg")).unwrap().into_rgb8());
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff]
    {
        let mut file = std::io::Cursor::new(Vec::new());
        image.write_to(&mut file, format).unwrap();
        let file = file.into_inner();
        match process(&file[..file.len() / 2], &recipe()) {
            Ok(_) => panic!("the first half of a {format:?} file was accepted"),
            Err(error) => assert_eq!(error.kind(), "corrupt_image", "{format:?}: {error:?}"),
        }
    }
}

#[test]
fn image_above_a_limit_is_refused_before_it_is_decoded() {
    // These files have a header but no pixels, so decoding them would give `corrupt_image`.
    assert_refused(&png_header_only(16_000, 16_000), "too_many_pixels");
    assert_refused(&png_header_only(16_385, 1), "side_too_long");
    assert_refused(&png_header_only(1, u32::MAX), "side_too_long");
    assert_refused(&png_header_only(5_000, 5_000), "corrupt_image");
}

#[test]
fn image_at_a_limit_is_accepted_and_image_above_it_is_refused() {
    let limits = Limits { max_pixels: 100, max_side: 20, ..recipe().limits };
    assert!(inspect(&png_header_only(10, 10), &limits).is_ok());
    assert!(inspect(&png_header_only(20, 5), &limits).is_ok());
    assert!(inspect(&png_header_only(101, 1), &limits).is_err());
    assert!(inspect(&png_header_only(21, 1), &limits).is_err());
    assert!(inspect(&png_header_only(11, 10), &limits).is_err());
}

#[tokio::test]
async fn problem_of_a_refused_image_tells_what_to_do_and_names_the_limits() {
    let app = TestApp::start(Settings::default()).await;
    let (_, too_many_pixels) = read_problem(app.post("image/png", png_header_only(8_000, 8_000)).await).await;
    insta::assert_json_snapshot!(too_many_pixels, @r#"
{
  "detail": "The image has 8000×8000 = 64000000 pixels; at most 30000000 are accepted. Make it smaller.",
  "height": 8000,
  "kind": "too_many_pixels",
  "limit": 30000000,
  "status": 422,
  "title": "Unprocessable Entity",
  "type": "urn:problem:too_many_pixels",
  "width": 8000
}
"#);
    let (_, unsupported) =
        read_problem(app.post("image/heic", "\0\0\0\x18ftypmp42\0\0\0\0mp42isom").await).await;
    insta::assert_json_snapshot!(without_avif(&unsupported), @r#"
{
  "accepted": [
    "JPEG",
    "PNG",
    "WebP",
    "GIF",
    "BMP",
    "TIFF",
    "HEIC"
  ],
  "detail": "A video is not accepted. Convert it to one of: JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC.",
  "kind": "unsupported_format",
  "status": 415,
  "title": "Unsupported Media Type",
  "type": "urn:problem:unsupported_format"
}
"#);
    let (_, not_an_image) = read_problem(app.post("image/png", "hello").await).await;
    insta::assert_json_snapshot!(without_avif(&not_an_image), @r#"
{
  "detail": "This is not an image. Send one of: JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC.",
  "kind": "not_an_image",
  "status": 422,
  "title": "Unprocessable Entity",
  "type": "urn:problem:not_an_image"
}
"#);
}

#[tokio::test]
async fn request_without_a_valid_body_is_refused() {
    let app =
        TestApp::start(Settings { preprocess_max_files: 2.try_into().unwrap(), ..Settings::default() }).await;
    let coffee = read_sample("coffee.jpg");
    let refusals = [
        (app.post("image/jpeg", "").await, 422, "empty_body"),
        (app.post_form(file_form([("empty.jpg", Vec::new())])).await, 422, "empty_body"),
        (app.post("text/plain", coffee.clone()).await, 415, "unsupported_media_type"),
        (app.upload_request().body(coffee.clone()).send().await.unwrap(), 415, "unsupported_media_type"),
        (app.post("multipart/form-data", coffee.clone()).await, 400, "bad_multipart"),
        (app.post("multipart/form-data; boundary=x", "--x\r\nrubbish").await, 400, "bad_multipart"),
        (app.post_form(reqwest::multipart::Form::new().text("name", "x")).await, 422, "no_file"),
        (
            app.post_form(file_form([("a", vec![1]), ("b", vec![2]), ("c", vec![3])])).await,
            422,
            "too_many_files",
        ),
    ];
    for (response, status, kind) in refusals {
        let (found, body) = read_problem(response).await;
        assert_eq!((found, body["kind"].as_str().unwrap()), (status, kind));
    }
    assert!(app.topic.published().is_empty());
}

#[tokio::test]
async fn body_above_the_limit_is_refused_with_413() {
    let app = TestApp::start(Settings { preprocess_max_body_bytes: 10_000, ..Settings::default() }).await;
    let coffee = read_sample("coffee.jpg");
    for response in [
        app.post("image/jpeg", coffee.clone()).await,
        app.post_form(file_form([("coffee.jpg", coffee)])).await,
    ] {
        let (status, body) = read_problem(response).await;
        assert_eq!((status, body["kind"].as_str().unwrap()), (413, "body_too_large"));
        assert!(body["detail"].as_str().unwrap().contains("10000"), "{body}");
    }
    let small = RgbImage::new(8, 8);
    let mut png = std::io::Cursor::new(Vec::new());
    small.write_to(&mut png, ImageFormat::Png).unwrap();
    assert_eq!(read_json(app.post("image/png", png.into_inner()).await).await.0, 200);
}

#[cfg(not(feature = "heic"))]
#[test]
fn heic_is_refused_by_name_without_its_feature() {
    let file = include_bytes!("data/heic_444.heic");
    let error = preprocess::image::process(file, &Settings::default().recipe()).unwrap_err();
    assert_eq!(
        (error.kind(), &*error.to_string()),
        ("unsupported_format", "HEIC, AVIF or a video is not accepted")
    );
}

#[cfg(not(feature = "avif"))]
#[test]
fn avif_is_refused_by_name_without_its_feature() {
    const AVIF: &str = "AVIF, which this build does not decode, is not accepted";
    // Only the reader of HEIC knows all brands.
    let other_brand = if cfg!(feature = "heic") { AVIF } else { "HEIC, AVIF or a video is not accepted" };
    let mut file = include_bytes!("data/avif_444.avif").to_vec();
    let mut refusal = |range: std::ops::Range<usize>, brands: &[u8]| {
        file[range].copy_from_slice(brands);
        let error = process(&file, &recipe()).unwrap_err();
        assert_eq!(error.kind(), "unsupported_format");
        error.to_string()
    };
    assert_eq!(refusal(8..12, b"avif"), AVIF);
    // With another first brand, only the other brands tell the format.
    for brand in [b"avis", b"avio", b"MA1B", b"mif1", b"abcd"] {
        assert_eq!(refusal(8..12, brand), other_brand);
    }
    // Without a brand of AVIF, only the coding of the picture tells the format.
    assert_eq!(refusal(8..32, b"mif1\0\0\0\0mif1miafmif1miaf"), other_brand);
}
