//! [`ReadyCheck`] checks the dependencies of a service whenever `/ready` is requested.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::Problem;

/// Time for which a result is reused, so that frequent requests cause little load.
const RESULT_LIFETIME: Duration = Duration::from_secs(1);
/// Maximum duration of a check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

type CheckFuture = Pin<Box<dyn Future<Output = Result<(), Problem>> + Send>>;
/// A result, and the time of the check.
type TimedResult = (Instant, Result<(), Problem>);

/// A check of the dependencies of a service. Clones share the latest result.
#[derive(Clone)]
pub struct ReadyCheck {
    check: Arc<dyn Fn() -> CheckFuture + Send + Sync>,
    latest: Arc<Mutex<Option<TimedResult>>>,
}

impl ReadyCheck {
    /// Creates a check that calls `check`. The error of `check` becomes the response of `/ready`.
    pub fn new<F>(check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Problem>> + Send + 'static,
    {
        Self { check: Arc::new(move || Box::pin(check())), latest: Arc::default() }
    }

    /// Returns the result of the check, which is at most [`RESULT_LIFETIME`] old.
    pub(super) async fn run(&self) -> Result<(), Problem> {
        // Requests that arrive during a check wait for its result.
        let mut latest = self.latest.lock().await;
        if let Some((at, result)) = &*latest
            && at.elapsed() < RESULT_LIFETIME
        {
            return result.clone();
        }
        let result = timeout(CHECK_TIMEOUT, (self.check)()).await.unwrap_or_else(|_| {
            let detail = "The bucket or the topic does not respond.";
            Err(Problem::unavailable("dependency_timeout", detail, RESULT_LIFETIME))
        });
        *latest = Some((Instant::now(), result.clone()));
        result
    }
}

impl fmt::Debug for ReadyCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyCheck").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn result_is_reused_for_a_second() {
        let call_count = Arc::new(AtomicUsize::new(0));
        let check = ReadyCheck::new({
            let call_count = Arc::clone(&call_count);
            move || {
                let is_first = call_count.fetch_add(1, Ordering::SeqCst) == 0;
                async move {
                    if is_first { Err(Problem::unavailable("down", "down", RESULT_LIFETIME)) } else { Ok(()) }
                }
            }
        });
        assert_eq!(check.run().await.unwrap_err().kind, "down");
        assert_eq!(check.run().await.unwrap_err().kind, "down");
        assert_eq!(call_count.load(Ordering::SeqCst), 1);
        tokio::time::advance(RESULT_LIFETIME).await;
        check.run().await.unwrap();
        assert_eq!(call_count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn check_that_hangs_is_a_problem() {
        let check = ReadyCheck::new(std::future::pending::<Result<(), Problem>>);
        assert_eq!(check.run().await.unwrap_err().kind, "dependency_timeout");
    }
}
