//! [`install`] makes every panic a line of the log.
//!
//! Without it, the standard library writes several lines of plain text to stderr, even for a panic that is
//! caught. They would stand between the JSON lines of the log.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic::{self, PanicHookInfo},
    thread,
};

use tracing::Level;

use crate::panic::message;

/// Directive of a log filter that lets the lines of this module pass.
pub(super) const TARGET_DIRECTIVE: &str = "platform::telemetry::panic_hook=error";
/// Maximum number of bytes of the message of a panic. A message may quote the input that caused the panic.
const MAX_MESSAGE_BYTES: usize = 500;
/// Maximum number of bytes of a backtrace.
const MAX_BACKTRACE_BYTES: usize = 16 << 10;

/// Installs a panic hook that logs each panic once, as an error, whether or not the panic is caught.
///
/// The line is within the span of the thread that panics. Code that catches a panic must not log it again. If
/// the log is for people and its filter drops errors, the previous hook handles the panic.
pub(super) fn install(log_is_json: bool) {
    let previous_hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if log_is_json || tracing::enabled!(Level::ERROR) {
            log(info);
        } else {
            previous_hook(info);
        }
    }));
}

fn log(info: &PanicHookInfo<'_>) {
    let message = message(info.payload());
    let location = info.location().map(ToString::to_string);
    // Captures the backtrace only if the variable RUST_BACKTRACE or RUST_LIB_BACKTRACE is set.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        panic = cut(message, MAX_MESSAGE_BYTES),
        location,
        thread = thread::current().name(),
        backtrace = backtrace.as_deref().map(|backtrace| cut(backtrace, MAX_BACKTRACE_BYTES)),
        "a thread panicked"
    );
}

/// Returns at most the first `max_bytes` bytes of `text`.
fn cut(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}
