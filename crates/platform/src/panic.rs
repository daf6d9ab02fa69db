//! [`message`] extracts the message of a caught panic, and [`CaughtPanic`] is the error for one.
//!
//! The panic hook of [`crate::telemetry`] has logged the panic, so whoever catches it does not log it again.

use std::{any::Any, error::Error};

use crate::cpu::CpuError;

/// Error of work that panicked. It contains the message of the panic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {0}")]
pub struct CaughtPanic(String);

impl CaughtPanic {
    /// Creates the error from the payload of the panic.
    pub fn new(payload: &(dyn Any + Send)) -> Self {
        Self(message(payload).to_owned())
    }
}

/// Returns true if `error` or one of its sources is a caught panic.
pub(crate) fn is_caused_by_panic(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source()).any(|error| {
        error.is::<CaughtPanic>()
            || error.downcast_ref::<CpuError>().is_some_and(|error| *error == CpuError::Panicked)
    })
}

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
