//! [`run_program`] runs a program to its end, and [`stop_on_signal`] tells a program to shut down at SIGTERM
//! or SIGINT.

use std::{
    error::Error,
    io::{self, Write},
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use tracing::Level;

use crate::telemetry::error_chain;

/// Directive of a log filter that lets the error that ends the program pass.
pub(crate) const TARGET_DIRECTIVE: &str = "platform::shutdown=error";
/// Maximum time that blocking tasks may continue after the program has returned.
///
/// A write to a healthy disk is finished in this time. The programs return at most half a second after their
/// drain timeout. Together, they end within the drain timeout and a second.
const BLOCKING_TASKS_TIMEOUT: Duration = Duration::from_millis(250);

/// Runs `program` on a new tokio runtime, logs its error, and returns the exit status of the process.
///
/// A blocking task that does not end in time, for example because the disk is slow, is abandoned and ends with
/// the process. Dropping the runtime would wait for such a task without a limit.
///
/// # Panics
/// Panics if `program` panics.
pub fn run_program<E>(program: impl Future<Output = Result<(), E>>) -> ExitCode
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    // Without this call, unwinding would drop the runtime.
    let result = panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(program)));
    let exit_code = match result {
        Ok(Ok(())) => Ok(ExitCode::SUCCESS),
        Ok(Err(error)) => {
            let error: Box<dyn Error + Send + Sync> = error.into();
            Ok(fail(&*error))
        }
        Err(panic) => Err(panic),
    };
    runtime.shutdown_timeout(BLOCKING_TASKS_TIMEOUT);
    exit_code.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// Logs the error that ends the program, and returns the exit status of a failure.
fn fail(error: &(dyn Error + 'static)) -> ExitCode {
    let error = error_chain(error);
    if tracing::enabled!(Level::ERROR) {
        tracing::error!(error, "the program has failed");
    } else {
        // The filter of a human-readable log may drop errors, but the user must see why the program ended. If
        // stderr is closed, the exit status still reports the failure.
        let _ = writeln!(io::stderr(), "{error}");
    }
    ExitCode::FAILURE
}

/// Returns a token that is cancelled at the first SIGTERM or SIGINT.
///
/// # Panics
/// This function panics if it is called outside a tokio runtime.
pub fn stop_on_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        wait_for_signal().await;
        token.cancel();
    });
    stop
}

async fn wait_for_signal() {
    let interrupt = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "cannot listen for SIGINT");
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = interrupt => tracing::info!(signal = "SIGINT", "shutting down"),
        () = wait_for_sigterm() => tracing::info!(signal = "SIGTERM", "shutting down"),
    }
}

#[cfg(unix)]
async fn wait_for_sigterm() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        Err(error) => {
            tracing::error!(%error, "cannot listen for SIGTERM");
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(not(unix))]
async fn wait_for_sigterm() {
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use tokio::sync::oneshot;

    use super::*;
    use crate::telemetry::CapturedLog;

    /// Timeout of a wait. Only a test that hangs reaches it.
    const TEST_TIMEOUT: Duration = Duration::from_secs(60);

    /// Runs a program that starts an endless blocking task and then calls `finish`. Returns an error if
    /// [`run_program`] does not return.
    fn run_with_endless_blocking_task(
        finish: fn() -> io::Result<()>,
    ) -> Result<thread::Result<ExitCode>, mpsc::RecvTimeoutError> {
        let (end_of_test, gate) = mpsc::channel::<()>();
        let (returned, has_returned) = mpsc::channel();
        thread::spawn(move || {
            let program = async move {
                let (started, has_started) = oneshot::channel();
                tokio::task::spawn_blocking(move || {
                    started.send(()).unwrap();
                    gate.recv()
                });
                has_started.await.unwrap();
                finish()
            };
            let result = panic::catch_unwind(AssertUnwindSafe(|| run_program(program)));
            returned.send(result).unwrap();
        });
        let result = has_returned.recv_timeout(TEST_TIMEOUT);
        drop(end_of_test);
        result
    }

    #[test]
    fn program_ends_although_a_blocking_task_never_ends() {
        let exit_code = |finish| run_with_endless_blocking_task(finish).expect("the program ends").unwrap();
        assert_eq!(exit_code(|| Ok(())), ExitCode::SUCCESS);
        assert_eq!(exit_code(|| Err(io::Error::other("failed"))), ExitCode::FAILURE);
        let panicked = run_with_endless_blocking_task(|| panic!("panic for this test"));
        assert!(panicked.expect("the program ends").is_err());
    }

    #[test]
    fn error_of_the_program_is_one_line_of_the_log() {
        #[derive(Debug, thiserror::Error)]
        #[error("the bucket cannot be opened")]
        struct OpenError(#[source] io::Error);

        let log = CapturedLog::start("error");
        let failed = run_program(async { Err(OpenError(io::Error::other("no such folder"))) });
        assert_eq!(failed, ExitCode::FAILURE);
        let lines = log.take_lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(line["severity"], "ERROR");
        assert_eq!(line["error"], "the bucket cannot be opened: no such folder");
    }
}
