//! Functions that bound and escape text from outside before it enters a response, the log or a metric.
//!
//! [`excerpt`] is for a value at the place where it is quoted. [`shorten`] and [`Bounded`] are the backstop of
//! [`Problem`](crate::http::Problem)s and of the log: a value that was not quoted with [`excerpt`] cannot make
//! them large either.

use std::fmt::{self, Display, Write};

/// Maximum number of characters of an excerpt. Escape sequences are counted in full.
pub const MAX_EXCERPT_CHARS: usize = 200;

/// Maximum number of characters of the messages of an error and its sources.
pub const MAX_ERROR_CHARS: usize = 1000;

/// Returns a value that displays the beginning of `value`, with control characters escaped.
///
/// The text has at most [`MAX_EXCERPT_CHARS`] characters, and ends with `…` if `value` is longer. Formatting
/// stops at the maximum, so a long value costs no more than a short one.
///
/// ```
/// use platform::text::excerpt;
///
/// assert_eq!(excerpt("a\nb").to_string(), r"a\nb");
/// assert_eq!(excerpt("x".repeat(1 << 20)).to_string().chars().count(), 201);
/// ```
pub fn excerpt<T: Display>(value: T) -> Bounded<T> {
    Bounded { value, max_chars: MAX_EXCERPT_CHARS }
}

/// A value that displays at most a number of its characters, with control characters escaped.
#[derive(Clone, Copy, Debug)]
pub struct Bounded<T> {
    value: T,
    max_chars: usize,
}

impl<T> Bounded<T> {
    /// Creates a value that displays at most `max_chars` characters of `value`, and `…` if there are more.
    pub fn new(value: T, max_chars: usize) -> Self {
        Self { value, max_chars }
    }
}

impl<T: Display> Display for Bounded<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut writer = BoundedWriter { output: formatter, chars_left: self.max_chars, state: Ok(()) };
        // The error of a full writer is not an error of this value.
        let result = write!(writer, "{}", self.value);
        match writer.state {
            Ok(()) => result,
            Err(Stop::Full) => formatter.write_char('…'),
            Err(Stop::Failed) => Err(fmt::Error),
        }
    }
}

/// Reason why a [`BoundedWriter`] accepts no more text.
#[derive(Clone, Copy)]
enum Stop {
    Full,
    Failed,
}

/// Escapes control characters and fails once the maximum number of characters is written.
struct BoundedWriter<'a, 'b> {
    output: &'a mut fmt::Formatter<'b>,
    chars_left: usize,
    state: Result<(), Stop>,
}

impl BoundedWriter<'_, '_> {
    fn write_bounded(&mut self, text: &str) -> Result<(), Stop> {
        self.state?;
        for character in text.chars() {
            if needs_escape(character) {
                character.escape_default().try_for_each(|part| self.write_char_bounded(part))?;
            } else {
                self.write_char_bounded(character)?;
            }
        }
        Ok(())
    }

    fn write_char_bounded(&mut self, character: char) -> Result<(), Stop> {
        self.chars_left = self.chars_left.checked_sub(1).ok_or(Stop::Full)?;
        self.output.write_char(character).map_err(|fmt::Error| Stop::Failed)
    }
}

impl Write for BoundedWriter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.state = self.write_bounded(text);
        self.state.map_err(|_| fmt::Error)
    }
}

/// Returns true for characters that could forge lines of the log or hide or reorder text on a terminal.
fn needs_escape(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

/// Returns the number of bytes that `text` takes in JSON, without its quotes.
pub fn json_length(text: &str) -> usize {
    text.chars().map(json_length_of_char).sum()
}

/// Cuts `text` so that it takes at most `max_bytes` in JSON, without its quotes. A text that was cut ends with
/// `…`, which is included in `max_bytes` if that is at least 3.
pub fn shorten(text: &mut String, max_bytes: usize) {
    const ELLIPSIS: char = '…';
    if text.len() * MAX_JSON_BYTES_PER_BYTE <= max_bytes {
        return;
    }
    let max_kept_bytes = max_bytes.saturating_sub(ELLIPSIS.len_utf8());
    let (mut used_bytes, mut kept_length) = (0, 0);
    for (position, character) in text.char_indices() {
        if used_bytes <= max_kept_bytes {
            kept_length = position;
        }
        used_bytes += json_length_of_char(character);
        if used_bytes > max_bytes {
            text.truncate(kept_length);
            text.push(ELLIPSIS);
            return;
        }
    }
}

/// JSON writes some control characters, which have one byte in UTF-8, as `\u0000`.
const MAX_JSON_BYTES_PER_BYTE: usize = 6;

/// Returns the number of bytes that serde_json writes for `character` in a string.
fn json_length_of_char(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => MAX_JSON_BYTES_PER_BYTE,
        other => other.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_text_is_unchanged_and_long_text_is_cut() {
        assert_eq!(excerpt("a photo.jpg \"ä\"").to_string(), "a photo.jpg \"ä\"");
        let full = "ä".repeat(MAX_EXCERPT_CHARS);
        assert_eq!(excerpt(&full).to_string(), full);
        assert_eq!(excerpt(format!("{full}x")).to_string(), format!("{full}…"));
    }

    #[test]
    fn control_and_invisible_characters_are_escaped() {
        assert_eq!(excerpt("a\r\n\t\0\u{7f}\u{1b}[31m").to_string(), r"a\r\n\t\u{0}\u{7f}\u{1b}[31m");
        assert_eq!(excerpt("\u{202e}x\u{2028}\u{feff}").to_string(), r"\u{202e}x\u{2028}\u{feff}");
    }

    #[test]
    fn formatting_stops_when_the_excerpt_is_full() {
        struct Endless<'a>(&'a std::cell::Cell<usize>);
        impl Display for Endless<'_> {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    self.0.set(self.0.get() + 1);
                    formatter.write_str("0123456789")?;
                }
            }
        }
        let write_count = std::cell::Cell::new(0);
        let text = excerpt(Endless(&write_count)).to_string();
        assert_eq!(text.chars().count(), MAX_EXCERPT_CHARS + 1);
        assert_eq!(write_count.get(), MAX_EXCERPT_CHARS / 10 + 1);
    }

    proptest! {
        #[test]
        fn excerpt_of_any_text_is_short_and_has_no_control_character(text in any::<String>(), count in 1..100_usize) {
            let excerpt = excerpt(text.repeat(count)).to_string();
            prop_assert!(excerpt.chars().count() <= MAX_EXCERPT_CHARS + 1);
            prop_assert!(!excerpt.contains(char::is_control));
        }

        #[test]
        fn shortened_text_fits_in_json_and_is_a_prefix(text in any::<String>(), max_bytes in 3..100_usize) {
            let mut shortened = text.clone();
            shorten(&mut shortened, max_bytes);
            let json = serde_json::to_string(&shortened).unwrap();
            prop_assert!(json.len() - 2 <= max_bytes, "{json}");
            prop_assert_eq!(json_length(&shortened), json.len() - 2);
            if serde_json::to_string(&text).unwrap().len() - 2 <= max_bytes {
                prop_assert_eq!(&shortened, &text);
            } else {
                prop_assert!(text.starts_with(shortened.strip_suffix('…').unwrap()));
            }
        }
    }
}
