//! [`JsonLayer`] writes log lines as JSON for Cloud Logging.
//!
//! Cloud Logging reads the members `severity`, `time` and `message`, and makes all other members searchable.
//! A line contains the fields of its event and of the spans around the event. Therefore, one search for a
//! `request_id` finds all lines of a request.
//!
//! None of these crates writes such lines:
//! - `tracing-subscriber`'s feature `json` names the members `level` and `timestamp`, which Cloud Logging
//!   does not read, and nests the fields of spans.
//! - `tracing-stackdriver` 0.10 nests the fields of spans in the member `span`, and changes names to
//!   camelCase.
//! - `json-subscriber` 0.3 can rename and flatten members, but writes a member twice when an event and a
//!   span have a field of the same name.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    io::{self, Write},
    time::SystemTime,
};

use serde::Serialize;
use serde_json::Value;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, fmt::MakeWriter, layer::Context, registry::LookupSpan};

use super::error_chain;
use crate::{clock, text};

/// Maximum number of bytes of the text of one field in a line.
const MAX_FIELD_BYTES: usize = 2 << 10;
/// Maximum number of bytes of the texts of all fields of a line. With the names of the fields and the
/// numbers, a line stays below 8 KiB.
const MAX_TEXT_BYTES: usize = 6 << 10;

/// A layer that writes every event as one JSON object.
pub(super) struct JsonLayer<W> {
    writer: W,
    now: fn() -> SystemTime,
}

impl<W> JsonLayer<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer, now: SystemTime::now }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    severity: &'static str,
    time: String,
    target: &'a str,
    message: String,
    #[serde(flatten)]
    fields: BTreeMap<String, Value>,
}

impl<S, W> Layer<S> for JsonLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(span_fields) = span.extensions().get::<Fields>() {
                fields.0.extend(span_fields.0.clone());
            }
        }
        event.record(&mut fields);
        let line = build_line(event, fields.0, (self.now)());
        // A failure is ignored, because only the log could report it.
        let _ = write_line(&mut self.writer.make_writer_for(event.metadata()), &line);
    }
}

/// Returns the line for `event`. `fields` are the fields of the event and of its spans.
fn build_line<'a>(event: &Event<'a>, mut fields: BTreeMap<String, Value>, now: SystemTime) -> Line<'a> {
    let mut message = match fields.remove("message") {
        Some(Value::String(message)) => message,
        Some(other) => other.to_string(),
        None => String::new(),
    };
    // A field that has the name of another member gets the suffix `_`, because JSON readers treat duplicate
    // members differently.
    for reserved in ["severity", "time", "target"] {
        if let Some(value) = fields.remove(reserved) {
            fields.insert(format!("{reserved}_"), value);
        }
    }
    shorten_texts(&mut message, &mut fields);
    Line {
        severity: severity(*event.metadata().level()),
        time: clock::format_rfc3339(now),
        target: event.metadata().target(),
        message,
        fields,
    }
}

/// Cuts the texts of a line, so that no line is much longer than others, whatever a client sends.
fn shorten_texts(message: &mut String, fields: &mut BTreeMap<String, Value>) {
    let mut bytes_left = MAX_TEXT_BYTES;
    let field_texts = fields.values_mut().filter_map(|value| match value {
        Value::String(text) => Some(text),
        _ => None,
    });
    for text in std::iter::once(message).chain(field_texts) {
        text::shorten(text, MAX_FIELD_BYTES.min(bytes_left));
        bytes_left = bytes_left.saturating_sub(text::json_length(text));
    }
}

/// Writes `line` in a single write, so that the lines of different threads and processes do not mix.
fn write_line(writer: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    writer.write_all(&text)
}

fn severity(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "DEFAULT",
    }
}

/// The fields of a span or an event.
#[derive(Default)]
struct Fields(BTreeMap<String, Value>);

impl Fields {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, prefix(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.set(field, error_chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = BoundedText(String::new());
        // The error means that the text is full.
        let _ = write!(text, "{value:?}");
        self.set(field, text.0);
    }
}

/// Returns the beginning of `text`, which is longer than [`MAX_FIELD_BYTES`] if `text` is.
fn prefix(text: &str) -> &str {
    &text[..text.ceil_char_boundary(MAX_FIELD_BYTES + 1)]
}

/// Text that accepts no more than it needs to be cut later.
struct BoundedText(String);

impl fmt::Write for BoundedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(prefix(text));
        if self.0.len() > MAX_FIELD_BYTES { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::telemetry::capture::LogBuffer;

    fn capture_log(emit: impl FnOnce()) -> String {
        let captured = LogBuffer::default();
        let writer = captured.clone();
        let now = || UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let layer = JsonLayer { writer: move || writer.clone(), now };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), emit);
        captured.take()
    }

    #[test]
    fn event_and_span_fields_are_members_of_one_object() {
        let text = capture_log(|| {
            let outer = tracing::info_span!("request", request_id = "abc", status = tracing::field::Empty);
            let _outer = outer.enter();
            outer.record("status", 200);
            let _inner = tracing::info_span!("inner", request_id = "inner wins", n = 1).entered();
            tracing::info!(target: "platform::test", ms = 1.5, ok = true, "an image of {} bytes", 7);
            tracing::error!(target: "platform::test", error = &io::Error::other("disk") as &dyn std::error::Error);
            tracing::warn!(target: "platform::test", severity = "mine", n = 2, "the event wins");
        });
        insta::assert_snapshot!(text, @r#"
        {"severity":"INFO","time":"2023-11-14T22:13:20.123000Z","target":"platform::test","message":"an image of 7 bytes","ms":1.5,"n":1,"ok":true,"request_id":"inner wins","status":200}
        {"severity":"ERROR","time":"2023-11-14T22:13:20.123000Z","target":"platform::test","message":"","error":"disk","n":1,"request_id":"inner wins","status":200}
        {"severity":"WARNING","time":"2023-11-14T22:13:20.123000Z","target":"platform::test","message":"the event wins","n":2,"request_id":"inner wins","severity_":"mine","status":200}
        "#);
    }

    #[test]
    fn control_characters_are_escaped() {
        let text = capture_log(|| {
            tracing::info!(name = "a\nb\u{1b}[31m", other = %"c\r\nd", "e\nf\0{}", "\u{7}");
        });
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(!text.trim_end_matches('\n').contains(|c: char| c.is_control()), "{text:?}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["name"], "a\nb\u{1b}[31m");
        assert_eq!(line["message"], "e\nf\0\u{7}");
    }

    #[test]
    fn line_with_long_and_hostile_fields_is_shorter_than_8_kib() {
        for part in ["x", "\u{0}", "\"", "\u{7f}", "😀", "\\"] {
            let long = part.repeat(1 << 20);
            let text = capture_log(|| {
                let _span = tracing::info_span!("request", a = long, b = %long).entered();
                let error = io::Error::other(long.clone());
                tracing::info!(
                    c = ?long,
                    d = long,
                    e = %long,
                    error = &error as &dyn std::error::Error,
                    last = long,
                    "{long}"
                );
            });
            assert!(text.len() < 8 << 10, "{} bytes of {part:?}", text.len());
            let line: Value = serde_json::from_str(&text).unwrap();
            let message = line["message"].as_str().unwrap();
            assert!(message.len() > 300 && message.ends_with('…'), "{message}");
            assert!(line["last"].as_str().unwrap().ends_with('…'), "{text}");
        }
    }

    #[test]
    fn every_level_has_a_severity_of_cloud_logging() {
        let levels = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];
        let severities = levels.map(severity);
        assert_eq!(severities, ["DEFAULT", "DEBUG", "INFO", "WARNING", "ERROR"]);
    }
}
