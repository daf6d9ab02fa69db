//! A [`Pusher`] delivers the messages of a topic by HTTP POST.
//!
//! # Refusals and failures
//!
//! A response of success acknowledges a message. Status 500 means that the message itself made the subscriber
//! fail, and counts as a failure. After the maximum number of failures, the [`DeadLetterHandler`] records the
//! failure, and the message becomes a dead letter. Any other response, or none, is a refusal. A refusal is no
//! fault of the message, so a message can be refused any number of times. The pause between two attempts grows
//! up to a maximum. The first acknowledgement after an outage makes the refused messages due.
//!
//! # Crashes
//!
//! A message can crash the process that delivers and handles it. The store therefore remembers which messages
//! are being delivered. After a crash, these messages are suspects, because any of them may be the cause.
//!
//! A suspect is delivered alone: nothing else is delivered at the same time. The other messages that were due
//! at the start go first, so that they are delivered even if a suspect crashes every process. An outcome clears
//! the suspect. A crash during the delivery of a lone suspect counts as a failure, and the pause before the
//! next attempt grows with the number of failures. A message that always crashes the process thus becomes a
//! dead letter. If the process is killed for other reasons, the kills would have to hit the short lone delivery
//! of the same message again and again, although every hit makes the pause before it longer.
//!
//! A requested shutdown is not a crash. After the request, the end of the process counts for no message.

mod dead_letter;
mod policy;
mod push;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    task::{self, JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

pub(super) use self::policy::retry_pause;
use self::push::{Lease, PushContext, log_store_error};
pub use self::{
    dead_letter::{DeadLetter, DeadLetterHandler},
    policy::RetryPolicy,
};
use super::{
    SqliteTopic,
    store::{Claim, ClaimRequest, ClaimedMessage, StoreError},
};
use crate::{
    clock::{millis, unix_millis},
    telemetry::error_chain,
};

/// Pause after an error of the store, before the pusher claims messages again.
const STORE_ERROR_PAUSE: Duration = Duration::from_secs(1);

/// A task that delivers the messages of a topic.
pub struct Pusher {
    context: Arc<PushContext>,
    /// Wakes the pusher when a message is published.
    published: Arc<Notify>,
    /// Cancelled when the end of the process is requested.
    shutdown: CancellationToken,
}

impl Pusher {
    pub(super) fn new(
        topic: &SqliteTopic,
        url: &str,
        policy: RetryPolicy,
        dead_letters: Arc<dyn DeadLetterHandler>,
    ) -> Self {
        let context = PushContext {
            store: Arc::clone(&topic.store),
            backlog: Arc::clone(&topic.backlog),
            client: topic.client.clone(),
            url: url.to_owned(),
            policy,
            dead_letters,
            first_refusal: Mutex::default(),
        };
        Self {
            context: Arc::new(context),
            published: Arc::clone(&topic.published),
            shutdown: CancellationToken::new(),
        }
    }

    /// Sets the token that is cancelled when the end of the process is requested.
    ///
    /// The pusher continues to deliver messages, but the end of the process no longer counts as their failure.
    /// The stop token of [`Self::run`] has the same effect.
    #[must_use]
    pub fn with_shutdown(self, shutdown: CancellationToken) -> Self {
        Self { shutdown, ..self }
    }

    /// Delivers messages until `stop` is cancelled, then waits for the pushes in progress.
    ///
    /// This method waits for at most the ack deadline. Messages that are not acknowledged by then are
    /// delivered again after the next start.
    pub async fn run(self, stop: CancellationToken) {
        let Self { context, published, shutdown } = self;
        let started_ms = unix_millis(SystemTime::now());
        if stop.run_until_cancelled(context.recover_interrupted(started_ms)).await.is_none() {
            return;
        }
        let mut pushes = Pushes::default();
        let mut is_shutting_down = false;
        let max_outstanding = context.policy.max_outstanding.max(1);
        while !stop.is_cancelled() {
            let mut pause = None;
            if pushes.has_capacity(max_outstanding) {
                let limit = max_outstanding - pushes.leases.len();
                let claimed = context.claim(pushes.leased_ids(), limit, started_ms, is_shutting_down);
                match claimed.await {
                    Ok((Claim { messages, is_alone, .. }, until_next)) => {
                        pause = until_next;
                        pushes.is_alone = is_alone;
                        for message in messages {
                            pushes.start(Arc::clone(&context), message);
                        }
                    }
                    Err(error) => {
                        tracing::error!(error = error_chain(&error), "the topic cannot be read");
                        pause = Some(STORE_ERROR_PAUSE);
                    }
                }
            }
            let has_capacity = pushes.has_capacity(max_outstanding);
            tokio::select! {
                () = stop.cancelled() => {}
                () = shutdown.cancelled(), if !is_shutting_down => {
                    is_shutting_down = true;
                    pushes.pardon(&context).await;
                }
                Some(ended) = pushes.tasks.join_next_with_id() => {
                    pushes.end(&context, ended).await;
                    // The leases of other pushes that have ended are released, too, so that one query claims
                    // the next messages for all of them.
                    while let Some(ended) = pushes.tasks.try_join_next_with_id() {
                        pushes.end(&context, ended).await;
                    }
                }
                () = published.notified(), if has_capacity => {}
                () = sleep(pause.unwrap_or_default()), if has_capacity && pause.is_some() => {}
            }
        }
        pushes.pardon(&context).await;
        let all_ended = async {
            while let Some(ended) = pushes.tasks.join_next_with_id().await {
                pushes.end(&context, ended).await;
            }
        };
        if timeout(context.policy.ack_deadline, all_ended).await.is_err() {
            tracing::warn!(
                "some pushes have not ended; their messages are delivered again after the next start"
            );
        }
    }
}

impl PushContext {
    /// Makes suspects of the messages whose delivery a crash interrupted. Tries again until the store responds.
    async fn recover_interrupted(&self, now_ms: i64) {
        loop {
            let policy = self.policy.clone();
            let compute_pause_ms = move |id, failures| millis(retry_pause(&policy, id, failures));
            match self.store.recover_interrupted(now_ms, compute_pause_ms).await {
                Ok(0) => return,
                Ok(suspects) => {
                    tracing::warn!(
                        suspects,
                        "a crash interrupted deliveries; they are repeated one at a time"
                    );
                    return;
                }
                Err(error) => {
                    tracing::error!(error = error_chain(&error), "the topic cannot be read");
                    sleep(STORE_ERROR_PAUSE).await;
                }
            }
        }
    }

    /// Claims messages that are due. Returns the claim, and the time until the next message is due.
    async fn claim(
        &self,
        leased_ids: HashSet<i64>,
        limit: usize,
        started_ms: i64,
        is_shutting_down: bool,
    ) -> Result<(Claim, Option<Duration>), StoreError> {
        let now_ms = unix_millis(SystemTime::now());
        let latest_valid_due_ms = now_ms.saturating_add(millis(self.policy.max_backoff));
        let request =
            ClaimRequest { now_ms, latest_valid_due_ms, started_ms, leased_ids, limit, is_shutting_down };
        let claim = self.store.claim(request).await?;
        let until_next = claim.next_due_ms.map(|next_due_ms| {
            // Due times are rounded down to milliseconds, so the message may be due up to one millisecond
            // later.
            Duration::from_millis(next_due_ms.saturating_sub(now_ms).unsigned_abs() + 1)
        });
        Ok((claim, until_next))
    }
}

/// The pushes in progress.
#[derive(Default)]
struct Pushes {
    tasks: JoinSet<()>,
    /// The messages that are being delivered, by the task of their push.
    leases: HashMap<task::Id, Lease>,
    /// True if the only message is a suspect.
    is_alone: bool,
}

impl Pushes {
    /// Returns true if another message may be claimed.
    fn has_capacity(&self, max_outstanding: usize) -> bool {
        if self.is_alone { self.leases.is_empty() } else { self.leases.len() < max_outstanding }
    }

    fn leased_ids(&self) -> HashSet<i64> {
        self.leases.values().map(|lease| lease.id).collect()
    }

    /// Starts the push of `message`, which stays leased until [`Self::end`].
    fn start(&mut self, context: Arc<PushContext>, message: ClaimedMessage) {
        let lease = Lease { id: message.id, attempt: message.attempt };
        let task = self.tasks.spawn(async move { context.deliver(message).await });
        self.leases.insert(task.id(), lease);
    }

    /// Makes the end of the process count as no failure of a suspect that is being delivered.
    async fn pardon(&self, context: &PushContext) {
        if self.is_alone {
            let pardoned = context.store.pardon_lone_delivery().await;
            self.leases.values().for_each(|lease| log_store_error(lease.id, pardoned.clone()));
        }
    }

    /// Releases the lease of a push that has ended. A panic counts as a failure of the message.
    async fn end(&mut self, context: &PushContext, ended: Result<(task::Id, ()), JoinError>) {
        let task_id = match &ended {
            Ok((task_id, ())) => *task_id,
            Err(error) => error.id(),
        };
        let lease = self.leases.remove(&task_id);
        // The end of the runtime cancels pushes. That is no fault of their messages.
        if let (Err(error), Some(lease)) = (ended, lease)
            && error.is_panic()
        {
            tracing::error!(id = lease.id, %error, "a push panicked");
            context.record_failure(lease, "the push panicked".to_owned()).await;
        }
    }
}
