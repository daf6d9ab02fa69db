//! Checks that a panic, caught or not, and the error that ends a program are one line of the JSON log each,
//! and that nothing else is written to stderr.

#![expect(clippy::unwrap_used, reason = "a panic in a helper fails the test")]

use std::{
    env, io,
    num::NonZeroUsize,
    process::{Command, ExitCode, Output},
    thread,
    time::Duration,
};

use axum::{Router, body::Body, http::Request, routing::get};
use platform::{
    cpu::{CpuError, CpuLimits, CpuPool},
    http::with_middleware,
    shutdown::run_program,
    telemetry::{self, LogFormat},
};
use serde_json::Value;
use tower::ServiceExt;

/// Name of the test that panics in the separate process.
const PANICKING_TEST: &str = "panics_for_the_other_test";
/// Name of the test whose program fails in the separate process.
const FAILING_TEST: &str = "fails_for_the_other_test";
/// Environment variable with the filter of the log. It is set only in the separate processes.
const VARIABLE: &str = "PANIC_LOG_FILTER";

#[tokio::test]
#[ignore = "the other test starts it in a separate process"]
async fn panics_for_the_other_test() {
    let Ok(filter) = env::var(VARIABLE) else { return };
    telemetry::init(&filter, LogFormat::Json);
    let limits = CpuLimits { threads: NonZeroUsize::MIN, max_jobs: 1, max_weight: 1 };
    let pool = CpuPool::new("test", limits).unwrap();
    let span = tracing::info_span!("request", request_id = "r1");
    let _entered = span.enter();
    let long_message = "\u{1b}[31m\n".repeat(10_000);
    let job = pool.run(1, move || panic!("in a job: {long_message}"));
    assert_eq!(job.await, Err::<(), _>(CpuError::Panicked));

    thread::Builder::new()
        .name("reader".to_owned())
        .spawn(|| panic!("in a thread"))
        .unwrap()
        .join()
        .unwrap_err();
    tokio::spawn(async { panic!("in a task") }).await.unwrap_err();

    let routes = Router::new().route("/", get(async || -> () { panic!("in a handler") }));
    let app = with_middleware(routes, "test", Duration::from_secs(60));
    let response = app.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 500);
}

#[test]
#[ignore = "the other test starts it in a separate process"]
fn fails_for_the_other_test() {
    let Ok(filter) = env::var(VARIABLE) else { return };
    telemetry::init(&filter, LogFormat::Json);
    let exit_code = run_program(async { Err(io::Error::other("the disk is gone\nfor ever")) });
    assert_eq!(exit_code, ExitCode::FAILURE);
}

/// Runs the test `name` in a separate process.
fn run_in_separate_process(name: &str, filter: &str, backtrace: &str) -> Output {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(VARIABLE, filter)
        .env("RUST_BACKTRACE", backtrace)
        .env_remove("RUST_LIB_BACKTRACE")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

#[test]
fn error_that_ends_a_program_is_one_line_of_the_json_log_whatever_the_filter_is() {
    for filter in ["info", "off"] {
        let output = run_in_separate_process(FAILING_TEST, filter, "0");
        let stderr = String::from_utf8(output.stderr).unwrap();
        let line: Value = serde_json::from_str(&stderr).unwrap_or_else(|error| panic!("{error}: {stderr}"));
        assert_eq!(
            (&line["severity"], &line["error"]),
            (&"ERROR".into(), &r"the disk is gone\nfor ever".into())
        );
    }
}

#[test]
fn every_panic_is_one_error_in_the_json_log_and_nothing_else_is_written() {
    for (filter, backtrace) in [("info", "0"), ("off", "1")] {
        let output = run_in_separate_process(PANICKING_TEST, filter, backtrace);
        let stderr = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<Value> = stderr
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
            .collect();
        let errors: Vec<&Value> = lines.iter().filter(|line| line["severity"] == "ERROR").collect();
        let panics: Vec<&str> = errors.iter().map(|line| line["panic"].as_str().unwrap()).collect();
        assert_eq!(panics.len(), 4, "{stderr}");
        for (panic, expected) in panics.iter().zip(["in a job: ", "in a thread", "in a task", "in a handler"])
        {
            assert!(panic.starts_with(expected) && panic.len() < 600, "{panic:?}");
        }
        assert!(errors.iter().all(|line| line["location"].as_str().unwrap().contains("panic_log.rs:")));
        assert!(errors.iter().all(|line| line["backtrace"].is_string() == (backtrace == "1")), "{stderr}");
        assert_eq!((&errors[0]["thread"], &errors[1]["thread"]), (&"test-cpu-0".into(), &"reader".into()));
        // The filter `off` drops the problem of the handler's request, and the span around the job.
        let is_logged = filter == "info";
        assert_eq!(errors[0]["request_id"] == "r1", is_logged, "{stderr}");
        let is_problem = |line: &Value| line["severity"] == "WARNING" && line["kind"] == "internal";
        assert_eq!(lines.iter().any(is_problem), is_logged, "{stderr}");
    }
}
