//! Tests that no text from a request makes a response or a line of the log large.

use platform::telemetry::CapturedLog;
use preprocess::Settings;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use reqwest::{
    Method, RequestBuilder,
    header::HeaderValue,
    multipart::{Form, Part},
};

use crate::support::{TestApp, read_sample};

/// Maximum size of a response and of a line of the log, in bytes.
const MAX_BYTES: usize = 8 << 10;
const LOG_FILTER: &str = "off,platform=debug,preprocess=debug";

/// Generates long texts with characters that are long in an escaped form.
fn hostile_text(max_bytes: usize) -> impl Strategy<Value = String> {
    let unit = prop_oneof![
        Just("\u{7f}".to_owned()),
        Just("\0".to_owned()),
        Just("\r\n".to_owned()),
        Just("\"\\".to_owned()),
        Just("😀".to_owned()),
        any::<String>().prop_filter("the text must not be empty", |text| !text.is_empty()),
    ];
    (unit, 1..=max_bytes).prop_map(|(unit, length)| unit.repeat(length / unit.len() + 1))
}

/// Returns `text` with the characters that a header can contain.
fn header_value(text: &str) -> HeaderValue {
    let bytes: Vec<u8> =
        text.bytes().map(|byte| if byte < b' ' || byte == 0x7f { b'"' } else { byte }).collect();
    HeaderValue::from_bytes(&bytes).unwrap()
}

/// Returns one request for each field that a request can have, with `text` in that field. `short` is for the
/// fields of the head, whose size is limited.
fn requests(app: &TestApp, text: &str, short: &str) -> Vec<RequestBuilder> {
    let client = reqwest::Client::new();
    let upload = || app.upload_request().header("content-type", "image/jpeg").body("no image");
    let form = |form: Form| app.upload_request().multipart(form);
    let file = |bytes: Vec<u8>| Part::bytes(bytes).file_name(text.to_owned());
    let escaped: String = short.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let escaped = &escaped[..escaped.len().min(20_000)];
    let method: String = short.chars().filter(char::is_ascii_alphabetic).collect();
    vec![
        app.upload_request().header("content-type", header_value(short)).body("x"),
        app.upload_request()
            .header("content-type", header_value(&format!("multipart/form-data; boundary={short}")))
            .body("x"),
        upload().header("x-request-id", header_value(short)),
        upload().header("traceparent", header_value(short)),
        upload().header("origin", header_value(short)),
        upload().header("sec-fetch-site", header_value(short)),
        upload().header("x-other", header_value(short)),
        upload().body(text.to_owned()),
        form(Form::new().part("file", file(text.as_bytes().to_vec()))),
        form(Form::new().part("file", file(b"a".to_vec())).part("file", file(read_sample("coffee.jpg")))),
        form(Form::new().part(text.to_owned(), file(b"a".to_vec()))),
        form(Form::new().part(
            "file",
            Part::text("x").headers([("x-y".parse().unwrap(), header_value(short))].into_iter().collect()),
        )),
        client.get(app.url(&format!("/predictions/{escaped}"))),
        client.get(app.url(&format!("/predictions/0123456789abcdef0123456789abcdef?wait={escaped}"))),
        client.get(app.url(&format!("/{escaped}"))),
        client.request(Method::from_bytes(format!("X{method}").as_bytes()).unwrap(), app.url("/preprocess")),
    ]
}

#[test]
fn responses_and_log_lines_are_shorter_than_8_kib_whatever_a_request_contains() {
    // All tasks run on this thread, whose log is captured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let log = CapturedLog::start(LOG_FILTER);
    let app = runtime.block_on(TestApp::start(Settings::default()));
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&(hostile_text(200_000), hostile_text(8_000)), |(text, short)| {
            let requests = requests(&app, &text, &short);
            log.take_lines();
            for (number, request) in requests.into_iter().enumerate() {
                let (status, headers_length, body) = runtime.block_on(async {
                    let response = request.send().await.unwrap();
                    let headers = response.headers().iter();
                    let headers_length: usize =
                        headers.map(|(name, value)| name.as_str().len() + value.len()).sum();
                    (response.status(), headers_length, response.text().await.unwrap())
                });
                prop_assert!(headers_length + body.len() < MAX_BYTES, "{} {} {:.300}", number, status, body);
                prop_assert!(!body.contains(|c: char| c.is_control()), "{} {} {:?}", number, status, body);
                let lines = log.take_lines();
                prop_assert!(!lines.is_empty(), "{} is not logged", number);
                for line in lines {
                    prop_assert!(line.len() < MAX_BYTES, "{} {:.300}", number, line);
                }
            }
            Ok(())
        })
        .unwrap();
}
