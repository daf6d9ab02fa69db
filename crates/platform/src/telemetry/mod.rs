//! Log and metrics.
//!
//! The log goes to stderr, one line an event: for people on a terminal, else JSON as Cloud Logging
//! reads it (`json`). Metrics are kept in the process and read at `/metrics`.

mod json;

use std::{
    error::Error,
    io::{self, IsTerminal},
    sync::OnceLock,
    thread,
    time::Duration,
};

use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use self::json::JsonLayer;

/// Where the process's log goes and how it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line, as Cloud Logging reads it.
    Json,
}

/// The log's flags; every service flattens them into its configuration.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct LogArgs {
    /// What is logged: a level, or levels by target, as in `info,classify=debug`
    #[arg(long, env = "RUST_LOG", default_value = "info", value_parser = parse_filter)]
    pub log: String,
    /// How the log looks
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,
}

impl LogArgs {
    /// [`init`] with these settings.
    pub fn init(&self) {
        init(&self.log, self.log_format);
    }
}

/// An empty `RUST_LOG` means the default, as it does for an unset one.
fn parse_filter(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Ok("info".to_owned());
    }
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Starts the log (on stderr) and the metrics recorder of this process. `filter` is as in `RUST_LOG`.
/// May be called more than once (tests): only the first call counts.
pub fn init(filter: &str, format: LogFormat) {
    let (env_filter, bad_filter) = match EnvFilter::try_new(filter) {
        Ok(env_filter) => (env_filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let terminal = io::stderr().is_terminal();
    let human = match format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let registry = tracing_subscriber::registry().with(env_filter);
    let installed = if human {
        registry.with(fmt::layer().with_writer(io::stderr).with_ansi(terminal)).try_init()
    } else {
        registry.with(JsonLayer::new(io::stderr)).try_init()
    };
    if installed.is_ok()
        && let Some(error) = bad_filter
    {
        tracing::warn!(filter, %error, "the log filter cannot be read; using \"info\"");
    }
    if let Err(error) = recorder() {
        tracing::warn!(error = error_chain(error), "there will be no metrics");
    }
}

/// Upper bounds in seconds of the buckets of every `*_duration_seconds`: from one pass of a small
/// network to the longest a request may take.
const DURATION_BUCKETS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper bounds of the buckets of every `*_batch_size`.
const BATCH_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// The recorder of this process, installed by the first call.
fn recorder() -> Result<&'static PrometheusHandle, &'static BuildError> {
    static RECORDER: OnceLock<Result<PrometheusHandle, BuildError>> = OnceLock::new();
    RECORDER.get_or_init(install_recorder).as_ref()
}

fn install_recorder() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".to_owned()), &DURATION_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_batch_size".to_owned()), &BATCH_BUCKETS)?
        .install_recorder()?;
    // Samples are kept one by one until they are summed up: without this thread they would pile up
    // in a process that nobody scrapes. It ends with the process.
    let upkeep = handle.clone();
    let started = thread::Builder::new().name("metrics-upkeep".to_owned()).spawn(move || {
        loop {
            thread::sleep(Duration::from_secs(5));
            upkeep.run_upkeep();
        }
    });
    if let Err(error) = started {
        tracing::warn!(%error, "metrics are only summed up when they are read");
    }
    Ok(handle)
}

/// `GET /metrics` in the text format of Prometheus.
pub fn metrics_routes() -> Router {
    let render = || async {
        let text = recorder().map(PrometheusHandle::render).unwrap_or_default();
        ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
    };
    Router::new().route("/metrics", get(render))
}

/// An error and all its causes in one line, for the log.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |&error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// A token that is cancelled at SIGTERM or SIGINT. To be called within a tokio runtime.
pub fn stop_on_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    tokio::spawn(async move {
        shutdown_signal().await;
        signalled.cancel();
    });
    stop
}

async fn shutdown_signal() {
    let interrupt = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "SIGINT cannot be listened for");
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = interrupt => tracing::info!(signal = "SIGINT", "asked to stop"),
        () = terminate() => tracing::info!(signal = "SIGTERM", "asked to stop"),
    }
}

#[cfg(unix)]
async fn terminate() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        Err(error) => {
            tracing::error!(%error, "SIGTERM cannot be listened for");
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(not(unix))]
async fn terminate() {
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_twice_is_harmless() {
        init("off", LogFormat::Json);
        init("not=a=filter", LogFormat::Human);
    }

    #[test]
    fn metrics_are_rendered_with_buckets() {
        let handle = recorder().unwrap();
        metrics::counter!("telemetry_test_total", "kind" => "a").increment(2);
        metrics::histogram!("telemetry_test_duration_seconds").record(0.02);
        let text = handle.render();
        assert!(text.contains("telemetry_test_total{kind=\"a\"} 2"), "{text}");
        assert!(text.contains("telemetry_test_duration_seconds_bucket{le=\"0.01\"} 0"), "{text}");
        assert!(text.contains("telemetry_test_duration_seconds_bucket{le=\"0.025\"} 1"), "{text}");
    }

    #[test]
    fn filters_are_checked() {
        assert_eq!(parse_filter("info,classify=debug"), Ok("info,classify=debug".to_owned()));
        assert_eq!(parse_filter(" "), Ok("info".to_owned()));
        assert!(parse_filter("a=b=c").is_err());
    }

    #[test]
    fn an_error_and_its_causes_are_one_line() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        assert_eq!(error_chain(&Outer(io::Error::other("inner"))), "outer: inner");
    }
}
