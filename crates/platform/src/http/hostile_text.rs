//! [`check_responses_and_log`] sends requests with hostile texts. It is for tests of the services.
#![expect(clippy::expect_used, reason = "a failed expectation fails the test that uses this module")]

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use reqwest::{RequestBuilder, header::HeaderValue};
use tokio::runtime::Runtime;

use crate::telemetry::CapturedLog;

/// Maximum size of a response and of a line of the log, in bytes.
const MAX_BYTES: usize = 8 << 10;

/// Checks that no text from a request makes a response or a line of the log large, and that every request is
/// logged.
///
/// `requests` builds one request for each field that a request can have. Its arguments are a text of up to
/// 50,000 bytes for that field, and one of up to 8,000 bytes for the fields of the head, whose size is limited.
/// The service must run on `runtime`, which has only the current thread, so that `log` contains its log.
///
/// # Panics
/// Panics if a request fails, is not logged, or makes a response or a line of the log large.
pub fn check_responses_and_log(
    runtime: &Runtime,
    log: &CapturedLog,
    requests: impl Fn(&str, &str) -> Vec<RequestBuilder>,
) {
    let config = Config { cases: 8, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&(hostile_text(50_000), hostile_text(8_000)), |(text, short)| {
            let requests = requests(&text, &short);
            log.take_lines();
            for (number, request) in requests.into_iter().enumerate() {
                let (status, headers_length, body) = runtime.block_on(async {
                    let response = request.send().await.expect("the service responds");
                    let headers = response.headers().iter();
                    let headers_length: usize =
                        headers.map(|(name, value)| name.as_str().len() + value.len()).sum();
                    (response.status(), headers_length, response.text().await.expect("the response is whole"))
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
        .expect("every response and every line of the log is short");
}

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

/// Returns `text` with quotes in place of the characters that a header cannot contain.
#[expect(clippy::missing_panics_doc, reason = "the characters that a header refuses are replaced")]
pub fn header_value(text: &str) -> HeaderValue {
    let bytes: Vec<u8> =
        text.bytes().map(|byte| if byte < b' ' || byte == 0x7f { b'"' } else { byte }).collect();
    HeaderValue::from_bytes(&bytes).expect("a header can contain all other bytes")
}

/// Returns `text` percent-encoded for a URL, cut to 20,000 bytes.
pub fn percent_encode(text: &str) -> String {
    let mut encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    encoded.truncate(20_000);
    encoded
}
