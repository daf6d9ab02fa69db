//! W3C trace context: the header `traceparent` that follows an image from request to prediction.

use axum::http::HeaderMap;
use platform::topic::TRACEPARENT;
use uuid::Uuid;

/// One step of a trace, under which this service's work is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    /// 32 hexadecimal digits, the same for the whole trace.
    trace: String,
    /// Two hexadecimal digits; whether somebody records this trace.
    flags: String,
}

impl TraceParent {
    /// The caller's trace where its header is valid, else a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let only = match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        };
        only.and_then(Self::parse).unwrap_or_else(Self::new)
    }

    /// A trace that nobody records yet.
    fn new() -> Self {
        Self { trace: Uuid::new_v4().simple().to_string(), flags: "00".to_owned() }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let well_formed = is_hex(version, 2)
            && version != "ff"
            && is_hex(trace, 32)
            && is_hex(span, 16)
            && is_hex(flags, 2)
            // Later versions may have more parts; version 00 has none.
            && (version != "00" || parts.next().is_none());
        let given = trace.bytes().any(|digit| digit != b'0') && span.bytes().any(|digit| digit != b'0');
        // Of the flags of a later version only the sampled bit is known.
        let flags = match version {
            "00" => flags.to_owned(),
            _ => format!("{:02x}", u8::from_str_radix(flags, 16).ok()? & 1),
        };
        (well_formed && given).then(|| Self { trace: trace.to_owned(), flags })
    }

    /// The header for the next step: the same trace, a new span.
    pub(crate) fn next_step(&self) -> String {
        let random = Uuid::new_v4().simple().to_string();
        // The first 16 digits hold the version digit, so they are never all zero.
        let span = random.get(..16).unwrap_or_default();
        format!("00-{}-{span}-{}", self.trace, self.flags)
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_trace_goes_on_in_a_new_span() {
        let next = TraceParent::parse(VALID).unwrap().next_step();
        assert!(next.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        assert!(next.ends_with("-01"));
        assert_ne!(next, VALID);
        assert_eq!(TraceParent::parse(&next), TraceParent::parse(VALID));
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-more";
        assert_eq!(TraceParent::parse(later), TraceParent::parse(VALID));
    }

    #[test]
    fn anything_else_starts_a_new_trace() {
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
        let new = TraceParent::of(&HeaderMap::new()).next_step();
        assert!(TraceParent::parse(&new).is_some(), "{new}");
    }
}
