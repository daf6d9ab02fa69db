//! Sends bodies of exactly the maximum length and of one byte more, in every way a body can arrive.

use platform::http::test_client::{Framing, send};
use preprocess::Settings;

use crate::support::{TestApp, read_sample};

/// Maximum length of a body. It exceeds axum's default limit on bodies, 2 MiB.
const MAX_BODY_BYTES: usize = 3 << 20;

/// Builds a JPEG of `length` bytes. The decoder ignores the bytes after the end of the image.
fn jpeg_of_length(length: usize) -> Vec<u8> {
    let mut jpeg = read_sample("coffee.jpg");
    jpeg.resize(length, 0);
    jpeg
}

/// Builds a form of `length` bytes with the fields `file`, a small JPEG, and `filler`, which fills the rest
/// with a second JPEG if its name is `file`.
fn form_of_length(length: usize, filler: &str) -> Vec<u8> {
    let field = |name: &str| format!("--BOUNDARY\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
    let mut form = field("file").into_bytes();
    form.extend(read_sample("chelsea.jpg"));
    form.extend(format!("\r\n{}", field(filler)).into_bytes());
    let end = b"\r\n--BOUNDARY--\r\n";
    form.extend(jpeg_of_length(length - form.len() - end.len()));
    form.extend(end);
    form
}

#[tokio::test]
async fn body_of_the_maximum_length_is_accepted_and_one_more_byte_is_refused_in_every_form() {
    let settings = Settings { preprocess_max_body_bytes: MAX_BODY_BYTES, ..Settings::default() };
    let app = TestApp::start(settings).await;
    let one_file = |length| form_of_length(length, "comment");
    let two_files = |length| form_of_length(length, "file");
    const FORM: &str = "multipart/form-data; boundary=BOUNDARY";
    type Case<'a> = (&'a str, &'a dyn Fn(usize) -> Vec<u8>);
    let cases: [Case; 4] = [
        ("image/jpeg", &jpeg_of_length),
        ("application/octet-stream", &jpeg_of_length),
        (FORM, &one_file),
        (FORM, &two_files),
    ];
    for (content_type, build) in cases {
        for framing in Framing::ALL {
            let context = format!("{content_type} {framing:?}");
            let body = build(MAX_BODY_BYTES);
            let (status, response) = send(app.address(), "/preprocess", content_type, framing, &body).await;
            assert_eq!(status, 200, "{context}: {response}");
            let body = build(MAX_BODY_BYTES + 1);
            let (status, response) = send(app.address(), "/preprocess", content_type, framing, &body).await;
            assert_eq!(status, 413, "{context}: {response}");
            let problem: serde_json::Value = serde_json::from_str(&response).unwrap();
            assert_eq!(problem["kind"], "body_too_large", "{context}: {problem}");
        }
    }
}
