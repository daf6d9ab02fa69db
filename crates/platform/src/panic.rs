//! [`message`] extracts the message of a caught panic.

use std::any::Any;

/// Returns the message in the payload of a panic, or `no message` if the payload is not a text.
pub fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_and_formatted_messages_are_returned() {
        assert_eq!(message(&"literal"), "literal");
        assert_eq!(message(&format!("number {}", 7)), "number 7");
        assert_eq!(message(&7), "no message");
    }
}
