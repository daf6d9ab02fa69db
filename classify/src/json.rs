//! Bounds the cost of large JSON texts, which strangers may send.

use std::{panic::resume_unwind, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Maximum number of bytes of JSON that is parsed on an async worker. Parsing so many bytes takes less than a
/// millisecond.
pub(crate) const MAX_SMALL_JSON_BYTES: usize = 64 << 10;
/// Maximum number of larger texts that are received or parsed at the same time.
const MAX_LARGE_TEXTS: usize = 4;

/// Permits for JSON texts of more than [`MAX_SMALL_JSON_BYTES`]. Clones share the permits.
#[derive(Clone, Debug)]
pub(crate) struct LargeJsonPermits(Arc<Semaphore>);

/// Permit to hold one large text in memory and to parse it.
#[derive(Debug)]
pub(crate) struct LargeJsonPermit {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for LargeJsonPermits {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LARGE_TEXTS)))
    }
}

impl LargeJsonPermits {
    /// Waits until a further large text may be held in memory.
    pub(crate) async fn acquire(&self) -> LargeJsonPermit {
        // The semaphore is never closed, so `acquire_owned` does not fail.
        LargeJsonPermit { _permit: Arc::clone(&self.0).acquire_owned().await.ok() }
    }

    /// Runs `parse`, which parses a text of `byte_count` bytes. A large text is parsed on a blocking thread of
    /// tokio, for which `permit` is used if the caller has one already.
    pub(crate) async fn run_parser<T: Send + 'static>(
        &self,
        byte_count: usize,
        permit: Option<LargeJsonPermit>,
        parse: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if byte_count <= MAX_SMALL_JSON_BYTES {
            return parse();
        }
        let permit = match permit {
            Some(permit) => permit,
            None => self.acquire().await,
        };
        // The permit is released when the parser ends, even if the caller has gone by then.
        let parsing = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            parse()
        });
        match parsing.await.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(parsed) => parsed,
            Err(Ok(panic)) => resume_unwind(panic),
            // The runtime is shutting down and drops this future as well.
            Err(Err(_)) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, thread};

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn large_text_is_parsed_on_another_thread_and_waits_for_a_permit() {
        let permits = LargeJsonPermits::default();
        let test_thread = thread::current().id();
        let mut held = Vec::new();
        for _ in 0..MAX_LARGE_TEXTS {
            held.push(permits.acquire().await);
        }
        let parse = || thread::current().id();
        assert_eq!(permits.run_parser(MAX_SMALL_JSON_BYTES, None, parse).await, test_thread);
        let size = MAX_SMALL_JSON_BYTES + 1;
        let mut waiting = pin!(permits.run_parser(size, None, parse));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_ne!(permits.run_parser(size, held.pop(), parse).await, test_thread);
        assert_ne!(waiting.await, test_thread);
    }
}
