//! [`CapturedLog`] records the log of a test.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{Subscriber, subscriber::DefaultGuard};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, registry::LookupSpan};

use super::json::JsonLayer;

/// The log of the current thread, as JSON lines. Dropping this value ends the capture.
///
/// In a runtime with one thread, the log includes that of every task.
pub struct CapturedLog {
    buffer: LogBuffer,
    _guard: DefaultGuard,
}

/// The lines of a captured log. Clones share the buffer.
#[derive(Clone, Default)]
pub(super) struct LogBuffer(Arc<Mutex<Vec<u8>>>);

impl CapturedLog {
    /// Starts to capture the events that `filter` selects. `filter` has the syntax of `RUST_LOG`.
    pub fn start(filter: &str) -> Self {
        let buffer = LogBuffer::default();
        let subscriber = tracing_subscriber::registry().with(EnvFilter::new(filter));
        let guard = tracing::subscriber::set_default(buffer.clone().capture(subscriber));
        Self { buffer, _guard: guard }
    }

    /// Returns the lines since the last call.
    pub fn take_lines(&self) -> Vec<String> {
        self.buffer.take().lines().map(str::to_owned).collect()
    }
}

impl LogBuffer {
    /// Adds a layer to `subscriber` that writes the log into this buffer.
    fn capture<S>(self, subscriber: S) -> impl Subscriber + Send + Sync
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        subscriber.with(JsonLayer::new(move || self.clone()))
    }

    /// Returns the text since the last call.
    pub(super) fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for LogBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
