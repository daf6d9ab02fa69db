//! [`HttpLimits`] contains the limits on a request.

use std::time::Duration;

/// Limits that the middleware enforces on every request.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Maximum size of a request body in bytes. The response to a larger body is 413.
    pub max_body_bytes: usize,
    /// Maximum time to handle a request. After this time, the handler is dropped, and the response is 504.
    pub request_timeout: Duration,
}
