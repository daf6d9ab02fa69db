//! W3C trace context, by which the trace of a request continues in the messages on the topic.

use axum::http::HeaderMap;
use platform::topic::TRACEPARENT;
use uuid::Uuid;

/// The trace that a request belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    /// 32 hexadecimal digits, the same in every span of the trace.
    trace_id: String,
    /// Two hexadecimal digits. The lowest bit is set if the trace is sampled.
    flags: String,
}

impl TraceParent {
    /// Returns the caller's trace if there is exactly one `traceparent` header and the header is valid.
    /// Returns a new trace otherwise.
    pub(crate) fn from_headers_or_new(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let single = match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        };
        single.and_then(Self::parse).unwrap_or_else(Self::new)
    }

    /// Returns a new trace that is not sampled.
    pub(crate) fn new() -> Self {
        Self { trace_id: Uuid::new_v4().simple().to_string(), flags: "00".to_owned() }
    }

    /// Parses the value of a `traceparent` header, which has the form `version-trace_id-span_id-flags`.
    ///
    /// Returns `None` if the specification does not allow the value.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace_id, span_id, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_well_formed = is_hex(version, 2)
            && version != "ff"
            && is_hex(trace_id, 32)
            && is_hex(span_id, 16)
            && is_hex(flags, 2)
            // Only versions after 00 may have more than these four parts.
            && (version != "00" || parts.next().is_none());
        let is_nonzero = |id: &str| id.bytes().any(|digit| digit != b'0');
        // In versions after 00, only the meaning of the sampled bit is certain.
        let flags = match version {
            "00" => flags.to_owned(),
            _ => format!("{:02x}", u8::from_str_radix(flags, 16).ok()? & 1),
        };
        let is_valid = is_well_formed && is_nonzero(trace_id) && is_nonzero(span_id);
        is_valid.then(|| Self { trace_id: trace_id.to_owned(), flags })
    }

    /// Returns the `traceparent` for the next service, with the same trace and a new span.
    pub(crate) fn next_header(&self) -> String {
        let random = Uuid::new_v4().simple().to_string();
        // The specification forbids a span id that consists of zeros. The first 16 digits of a UUID are never
        // all zeros, because they include the version of the UUID.
        let span_id = random.get(..16).unwrap_or_default();
        format!("00-{}-{span_id}-{}", self.trace_id, self.flags)
    }
}

fn is_hex(text: &str, digit_count: usize) -> bool {
    text.len() == digit_count
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn valid_trace_is_continued_in_a_new_span() {
        let next = TraceParent::parse(VALID).unwrap().next_header();
        assert!(next.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        assert!(next.ends_with("-01"));
        assert_ne!(next, VALID);
        assert_eq!(TraceParent::parse(&next), TraceParent::parse(VALID));
    }

    #[test]
    fn later_version_is_read_without_its_unknown_flags_and_parts() {
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-more";
        assert_eq!(TraceParent::parse(later), TraceParent::parse(VALID));
    }

    #[test]
    fn invalid_or_missing_header_starts_a_new_trace() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad:?}");
        }
        let new = TraceParent::from_headers_or_new(&HeaderMap::new()).next_header();
        assert!(TraceParent::parse(&new).is_some(), "{new}");
    }
}
