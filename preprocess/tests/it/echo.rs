//! Tests that no text from a request makes a response or a line of the log large.

use platform::{
    http::hostile_text::{self, header_value, percent_encode},
    telemetry::CapturedLog,
};
use preprocess::Settings;
use reqwest::{
    Method, RequestBuilder,
    multipart::{Form, Part},
};

use crate::support::{TestApp, read_sample};

const LOG_FILTER: &str = "off,platform=debug,preprocess=debug";

/// Returns one request for each field that a request can have, with `text` in that field. `short` is for the
/// fields of the head, whose size is limited.
fn requests(app: &TestApp, text: &str, short: &str) -> Vec<RequestBuilder> {
    let client = reqwest::Client::new();
    let upload = || app.upload_request().header("content-type", "image/jpeg").body("no image");
    let form = |form: Form| app.upload_request().multipart(form);
    let file = |bytes: Vec<u8>| Part::bytes(bytes).file_name(text.to_owned());
    let escaped = percent_encode(short);
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
    hostile_text::check_responses_and_log(&runtime, &log, |text, short| requests(&app, text, short));
}
