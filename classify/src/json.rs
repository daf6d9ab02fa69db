//! Bounds the cost of large JSON texts, which strangers may send.

use std::{panic::resume_unwind, sync::Arc};

use tokio::sync::Semaphore;

/// Maximum number of bytes of JSON that is parsed on an async worker. Parsing so many bytes takes less than a
/// millisecond.
pub(crate) const MAX_SMALL_JSON_BYTES: usize = 64 << 10;
/// Maximum number of larger texts that are parsed at the same time.
const MAX_LARGE_TEXTS: u32 = 4;

/// Permits for JSON texts of more than [`MAX_SMALL_JSON_BYTES`]. Clones share the permits.
#[derive(Clone, Debug)]
pub(crate) struct LargeJsonPermits(Arc<Semaphore>);

impl Default for LargeJsonPermits {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LARGE_TEXTS as usize)))
    }
}

impl LargeJsonPermits {
    /// Runs `parse`, which parses a text of `byte_count` bytes. A large text waits for a permit, and is parsed on
    /// a blocking thread of tokio.
    pub(crate) async fn run_parser<T: Send + 'static>(
        &self,
        byte_count: usize,
        parse: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if byte_count <= MAX_SMALL_JSON_BYTES {
            return parse();
        }
        // The semaphore is never closed, so `acquire_owned` does not fail.
        let permit = Arc::clone(&self.0).acquire_owned().await.ok();
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
        let all_permits = permits.0.clone().acquire_many_owned(MAX_LARGE_TEXTS).await.unwrap();
        let parse = || thread::current().id();
        assert_eq!(permits.run_parser(MAX_SMALL_JSON_BYTES, parse).await, test_thread);
        let mut waiting = pin!(permits.run_parser(MAX_SMALL_JSON_BYTES + 1, parse));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(all_permits);
        assert_ne!(waiting.await, test_thread);
    }
}
