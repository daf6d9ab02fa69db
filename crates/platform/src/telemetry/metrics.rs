//! The recorder of the metrics, and the HTTP route that serves them.

use std::{sync::OnceLock, thread, time::Duration};

use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of the buckets of every histogram `*_duration_seconds`, in seconds. They range from a single
/// inference of a small network to the longest request.
const DURATION_BUCKETS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper bounds of the buckets of every histogram `*_batch_size`, in images.
const BATCH_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
/// Time between two aggregations of the recorded samples.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Returns the recorder of this process. The first call installs the recorder.
pub(super) fn recorder() -> Result<&'static PrometheusHandle, &'static BuildError> {
    static RECORDER: OnceLock<Result<PrometheusHandle, BuildError>> = OnceLock::new();
    RECORDER.get_or_init(install_recorder).as_ref()
}

fn install_recorder() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".to_owned()), &DURATION_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_batch_size".to_owned()), &BATCH_BUCKETS)?
        .install_recorder()?;
    // The recorder keeps every sample until the sample is aggregated. Without this thread, a process whose
    // metrics nobody reads would keep all samples. The thread runs until the process ends.
    let upkeep_handle = handle.clone();
    let spawned = thread::Builder::new().name("metrics-upkeep".to_owned()).spawn(move || {
        loop {
            thread::sleep(UPKEEP_INTERVAL);
            upkeep_handle.run_upkeep();
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "metrics are aggregated only when they are read");
    }
    Ok(handle)
}

/// Returns the route `GET /metrics`, which answers in the text format of Prometheus.
pub fn metrics_routes() -> Router {
    let render = || async {
        let text = recorder().map(PrometheusHandle::render).unwrap_or_default();
        ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
    };
    Router::new().route("/metrics", get(render))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_histogram_buckets_are_rendered() {
        let handle = recorder().unwrap();
        metrics::counter!("telemetry_test_total", "kind" => "a").increment(2);
        metrics::histogram!("telemetry_test_duration_seconds").record(0.02);
        let text = handle.render();
        assert!(text.contains("telemetry_test_total{kind=\"a\"} 2"), "{text}");
        assert!(text.contains("telemetry_test_duration_seconds_bucket{le=\"0.01\"} 0"), "{text}");
        assert!(text.contains("telemetry_test_duration_seconds_bucket{le=\"0.025\"} 1"), "{text}");
    }
}
