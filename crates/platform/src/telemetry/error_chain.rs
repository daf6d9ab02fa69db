//! [`error_chain`] formats an error and its sources as one line of text.

use std::{error::Error, fmt};

use crate::text::{Bounded, MAX_ERROR_CHARS};

/// Joins the messages of `error` and of all its sources with `: `, for the log.
///
/// Control characters are escaped, and the text is cut after [`MAX_ERROR_CHARS`] characters, because some
/// errors quote what they could not parse.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    Bounded::new(Messages(error), MAX_ERROR_CHARS).to_string()
}

/// Displays the messages of an error and of its sources.
struct Messages<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Messages<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)?;
        let sources = std::iter::successors(self.0.source(), |&error| error.source());
        for source in sources {
            write!(formatter, ": {source}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn error_and_source_are_joined_in_one_line() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        assert_eq!(error_chain(&Outer(io::Error::other("inner"))), "outer: inner");
    }

    #[test]
    fn long_message_is_cut_and_control_characters_are_escaped() {
        let text = error_chain(&io::Error::other("a\nb".repeat(10_000)));
        assert!(text.starts_with(r"a\nba\nb") && text.ends_with('…'), "{text}");
        assert_eq!(text.chars().count(), MAX_ERROR_CHARS + 1);
    }
}
