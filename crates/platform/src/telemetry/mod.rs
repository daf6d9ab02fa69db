//! Log and metrics.
//!
//! The log goes to stderr, one line per event: for people on a terminal, otherwise JSON that Cloud
//! Logging reads. Metrics are collected in the process and served at `/metrics`.

mod error_chain;
mod json;
mod log;
mod metrics;

pub use self::{
    error_chain::error_chain,
    log::{LogArgs, LogFormat},
    metrics::metrics_routes,
};

/// Starts the log and the metrics recorder of this process. `filter` has the syntax of `RUST_LOG`.
///
/// Only the first call has an effect, so that every test of a process may call it.
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
