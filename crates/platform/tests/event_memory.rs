//! Checks that parsing an event needs no more memory than its bytes, whatever its JSON is.
//!
//! This file is a separate test program, because it replaces the allocator of the whole process.
#![expect(unsafe_code, reason = "implementing an allocator requires unsafe code")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use platform::topic::{
    announcement::{EventContent, ReceivedEvent, parse_request},
    push::DeliveryError,
};

/// Number of bytes allocated since the start of the process.
static ALLOCATED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// An allocator that counts the allocated bytes and forwards each call to the system's allocator.
struct CountingAllocator;

// SAFETY: every call is forwarded to the system's allocator.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller fulfils the contract of `alloc`, which is the same for the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller fulfils the contract of `dealloc`; `memory` came from the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Size of every body in bytes.
const BODY_BYTES: usize = 1 << 20;
/// Memory that does not depend on the size of the body: error messages, and the parser's own buffers.
const SLACK_BYTES: usize = 64 << 10;

/// Parses a request and returns the event and the number of bytes that the parser allocated.
fn parse(headers: &[(&'static str, &'static str)], body: String) -> (ReceivedEvent, usize) {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    let body = Bytes::from(body);
    let before = ALLOCATED_BYTES.load(Ordering::Relaxed);
    let event = parse_request(&headers, &body);
    (event, ALLOCATED_BYTES.load(Ordering::Relaxed) - before)
}

/// Returns an array of many small objects with `byte_count` bytes. Its parsed form would need a hundred times
/// as much memory.
fn bomb(byte_count: usize) -> String {
    let element = r#"{"":0}"#;
    format!("[{element}{}]", format!(",{element}").repeat(byte_count / (element.len() + 1)))
}

// The test program has only this test, so that no other thread allocates memory meanwhile.
#[test]
fn parsing_a_bomb_allocates_at_most_its_decoded_data() {
    let bomb_text = bomb(BODY_BYTES);
    let base64 = BASE64_STANDARD.encode(bomb(BODY_BYTES / 4 * 3));
    let event_type = "google.cloud.storage.object.v1.finalized";
    let path = "\"gcs_path\":\"gs://b/o\"";
    let structured: &[_] = &[("content-type", "application/cloudevents+json")];
    let binary: &[_] = &[("ce-type", event_type)];
    let unwrapped: &[_] = &[("x-goog-pubsub-message-id", "1")];
    let finalized = r#"{"eventType":"OBJECT_FINALIZE","bucketId":"b","objectId":"o"}"#;

    // Each row has the headers, the body, and true if the event announces an image in spite of the bomb.
    type Headers<'a> = &'a [(&'static str, &'static str)];
    let forms: [(Headers<'_>, String, bool); 12] = [
        (&[], bomb_text.clone(), false),
        (&[], format!("{{\"x\":{bomb_text},{path}}}"), true),
        (&[], format!("{{\"message\":{bomb_text}}}"), false),
        (&[], format!("{{\"message\":{{\"x\":{bomb_text},\"data\":\"e30=\"}}}}"), false),
        (&[], format!("{{\"message\":{{\"attributes\":{bomb_text}}}}}"), false),
        (&[], format!("{{\"subscription\":{bomb_text},\"message\":{{}}}}"), false),
        (&[], format!("{{\"message\":{{\"attributes\":{finalized},\"data\":\"{base64}\"}}}}"), true),
        (unwrapped, bomb_text.clone(), false),
        (binary, format!("{{\"bucket\":\"b\",\"name\":\"o\",\"generation\":{bomb_text}}}"), true),
        (structured, format!("{{\"type\":\"{event_type}\",\"data\":{bomb_text}}}"), false),
        (
            structured,
            format!(
                "{{\"id\":{bomb_text},\"type\":\"{event_type}\",\"data\":{{\"bucket\":\"b\",\"name\":\"o\"}}}}"
            ),
            true,
        ),
        (structured, format!("{{\"type\":\"{event_type}\",\"data_base64\":\"{base64}\"}}"), false),
    ];
    for (number, (headers, body, announces_image)) in forms.into_iter().enumerate() {
        let max_bytes = body.len() + SLACK_BYTES;
        let has_base64 = body.contains(&base64);
        let (event, allocated_bytes) = parse(headers, body);
        assert_eq!(
            matches!(event.content, Ok(EventContent::Image(_))),
            announces_image,
            "form {number}: {event:?}"
        );
        assert!(
            announces_image || matches!(event.content, Err(DeliveryError::BadJson(_))),
            "form {number}: {event:?}"
        );
        let max_bytes = if has_base64 { max_bytes } else { SLACK_BYTES };
        assert!(allocated_bytes <= max_bytes, "form {number} allocated {allocated_bytes} bytes");
    }

    // Attributes are the only members whose number the sender chooses and that are kept.
    let attributes: Vec<String> = (0..BODY_BYTES / 12).map(|number| format!("\"{number}\":\"\"")).collect();
    let (event, allocated_bytes) =
        parse(&[], format!("{{\"message\":{{\"attributes\":{{{}}}}}}}", attributes.join(",")));
    assert!(matches!(event.content, Err(DeliveryError::BadJson(_))), "{event:?}");
    assert!(allocated_bytes <= SLACK_BYTES, "the attributes allocated {allocated_bytes} bytes");
}
