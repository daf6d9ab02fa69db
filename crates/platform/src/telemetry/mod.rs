//! The log and the metrics of a process.
//!
//! The log has one line per event and goes to stderr. By default, the lines are human-readable on a terminal
//! and JSON for Cloud Logging otherwise. The route `/metrics` serves the metrics.

#[cfg(any(test, feature = "testing"))]
mod capture;
mod error_chain;
mod foreign_output;
mod json;
mod log;
mod metrics;
mod panic_hook;

#[cfg(any(test, feature = "testing"))]
pub use self::capture::CapturedLog;
pub use self::{
    error_chain::error_chain,
    foreign_output::ForeignOutput,
    log::{LogArgs, LogFormat},
    metrics::metrics_routes,
};

/// Installs the log and the recorder of the metrics for this process. `filter` has the syntax of `RUST_LOG`. A
/// panic of any thread is logged as well.
///
/// Only the first call has an effect. Every test of a process may therefore call this function.
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
        init("off", LogFormat::Human);
        init("not=a=filter", LogFormat::Human);
    }
}
