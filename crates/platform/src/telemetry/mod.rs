//! This module has the log and the metrics of a service.
//!
//! The log has one line per event and goes to stderr. On a terminal the lines are for people; otherwise they
//! are JSON for Cloud Logging. The process collects its metrics, and serves them at `/metrics`.

mod error_chain;
mod json;
mod log;
mod metrics;

pub use self::{
    error_chain::error_chain,
    log::{LogArgs, LogFormat},
    metrics::metrics_routes,
};

/// Installs the log and the recorder of the metrics for this process. `filter` has the syntax of `RUST_LOG`.
///
/// Only the first call has an effect. So all tests of a process may call this function.
pub fn init(filter: &str, format: LogFormat) {
    log::install(filter, format);
    if let Err(error) = metrics::recorder() {
        tracing::warn!(error = error_chain(error), "metrics are disabled");
    }
}

impl LogArgs {
    /// Calls [`init`] with these settings.
    pub fn init(&self) {
        init(&self.log, self.log_format);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_init_has_no_effect() {
        init("off", LogFormat::Json);
        init("not=a=filter", LogFormat::Human);
    }
}
