//! Limits on every request.

use std::time::Duration;

/// Limits that the middleware enforces on every request.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Maximum size of a request body in bytes. A larger one is answered with 413.
    pub max_body_bytes: usize,
    /// Maximum time to handle a request. After it the handler is dropped and the response is 504.
    pub request_timeout: Duration,
}
