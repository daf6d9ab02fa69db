//! Claims messages for delivery, and recovers those whose delivery was interrupted.

use std::collections::HashSet;

use rusqlite::{Connection, Row, params};

use super::{
    Store, StoreError,
    row::{UnreadableColumn, move_to_dead_letters, parse_message, read_column},
};
use crate::{telemetry::error_chain, topic::Message};

/// Value of the column `delivery` of a message that is not being delivered.
const IDLE: i64 = 0;
/// Value of the column `delivery` of a message that is being delivered together with others.
const DELIVERED_TOGETHER: i64 = 1;
/// Value of the column `delivery` of a message that is being delivered while no other message is.
const DELIVERED_ALONE: i64 = 2;

/// Selects messages that are due at the time `?1` and are not suspects, at most `?2`.
const SELECT_DUE_MESSAGES: &str =
    "SELECT id, data, attributes, published_ms, attempts + 1 AS attempt, failures, last_failure, due_ms
     FROM messages WHERE due_ms <= ?1 AND suspect = 0 ORDER BY due_ms, id LIMIT ?2";
/// Selects suspects that are due at the time `?1`, at most `?2`.
const SELECT_DUE_SUSPECTS: &str =
    "SELECT id, data, attributes, published_ms, attempts + 1 AS attempt, failures, last_failure, due_ms
     FROM messages WHERE due_ms <= ?1 AND suspect = 1 ORDER BY due_ms, id LIMIT ?2";

/// A message that the pusher has claimed for delivery.
#[derive(Clone, Debug)]
pub(in crate::topic::sqlite) struct ClaimedMessage {
    pub(in crate::topic::sqlite) id: i64,
    pub(in crate::topic::sqlite) message: Message,
    /// Time of publication, in milliseconds since the Unix epoch.
    pub(in crate::topic::sqlite) published_ms: i64,
    /// Number of the delivery attempt. The first attempt is 1.
    pub(in crate::topic::sqlite) attempt: u32,
    /// Number of earlier attempts that failed because of the message itself.
    pub(in crate::topic::sqlite) failures: u32,
    /// Reason of the last of these failures.
    pub(in crate::topic::sqlite) last_failure: Option<String>,
    /// Time since when the message is due, in milliseconds since the Unix epoch.
    pub(in crate::topic::sqlite) due_ms: i64,
}

/// Parameters of [`Store::claim`].
#[derive(Debug)]
pub(in crate::topic::sqlite) struct ClaimRequest {
    pub(in crate::topic::sqlite) now_ms: i64,
    /// The current time plus the maximum backoff. A later due time means that the clock was set back, and the
    /// message becomes due at once.
    pub(in crate::topic::sqlite) latest_valid_due_ms: i64,
    /// Time when the pusher started. The suspects wait for the other messages that were due by then.
    pub(in crate::topic::sqlite) started_ms: i64,
    /// Ids of the messages that the pusher is delivering. They are not claimed again.
    pub(in crate::topic::sqlite) leased_ids: HashSet<i64>,
    /// Maximum number of claimed messages.
    pub(in crate::topic::sqlite) limit: usize,
    /// True if the end of the process is requested, so that it is not the fault of a message.
    pub(in crate::topic::sqlite) is_shutting_down: bool,
}

/// Result of [`Store::claim`].
#[derive(Debug)]
pub(in crate::topic::sqlite) struct Claim {
    pub(in crate::topic::sqlite) messages: Vec<ClaimedMessage>,
    /// True if the only claimed message is a suspect, which must be delivered alone.
    pub(in crate::topic::sqlite) is_alone: bool,
    /// Earliest due time of the messages that are not due yet.
    pub(in crate::topic::sqlite) next_due_ms: Option<i64>,
}

/// A row that is not a message and was moved to the dead letters.
struct UnreadableRow {
    id: i64,
    reason: String,
}

impl Store {
    /// Makes suspects of the messages whose delivery a crash interrupted.
    ///
    /// Adds a failure to a message that was being delivered alone. `compute_pause_ms` returns the pause before
    /// its next delivery from its id and its number of failures. Returns the number of suspects.
    pub(in crate::topic::sqlite) async fn recover_interrupted(
        &self,
        now_ms: i64,
        compute_pause_ms: impl Fn(i64, u32) -> i64 + Send + 'static,
    ) -> Result<usize, StoreError> {
        self.run_in_transaction(move |connection| {
            // A damaged row must not keep the others from being recovered. If its `suspect` is neither 0 nor 1, it
            // becomes a suspect. If its number of failures cannot be read, the number starts again at 0.
            let interrupted = connection
                .prepare_cached(
                    "SELECT id, delivery IS ?1, failures FROM messages
                     WHERE delivery != 0 OR suspect NOT IN (0, 1)",
                )?
                .query_map([DELIVERED_ALONE], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2).unwrap_or_default()))
                })?
                .collect::<rusqlite::Result<Vec<(i64, bool, u32)>>>()?;
            for &(id, was_alone, failures) in &interrupted {
                let (failures, due_ms, reason) = if was_alone {
                    let failures = failures.saturating_add(1);
                    let due_ms = now_ms.saturating_add(compute_pause_ms(id, failures));
                    (failures, due_ms, Some("the process ended during the delivery"))
                } else {
                    (failures, now_ms, None)
                };
                connection
                    .prepare_cached(
                        "UPDATE messages SET suspect = 1, delivery = ?2, failures = ?3, due_ms = ?4,
                         last_failure = coalesce(?5, last_failure) WHERE id = ?1",
                    )?
                    .execute(params![id, IDLE, failures, due_ms, reason])?;
            }
            Ok(interrupted.len())
        })
        .await
    }

    /// Makes a crash during the delivery of a lone suspect count no more than any other.
    pub(in crate::topic::sqlite) async fn pardon_lone_delivery(&self) -> Result<(), StoreError> {
        self.run_in_transaction(|connection| {
            connection
                .prepare_cached("UPDATE messages SET delivery = ?2 WHERE suspect = 1 AND delivery = ?1")?
                .execute([DELIVERED_ALONE, DELIVERED_TOGETHER])?;
            Ok(())
        })
        .await
    }

    /// Claims messages that are due, in the order of their due times.
    ///
    /// If a suspect is next, claims only the suspect, and only if no message is leased. Otherwise claims up to
    /// `limit` messages that are not suspects.
    ///
    /// The claim is stored before the delivery, so that a crash during the delivery is noticed.
    ///
    /// A row that is not a message is moved to the dead letters, because it would otherwise keep all others from
    /// being delivered. It is reported as a loss, so that its image is announced again.
    pub(in crate::topic::sqlite) async fn claim(&self, request: ClaimRequest) -> Result<Claim, StoreError> {
        let (claim, unreadable) =
            self.run_in_transaction(move |connection| claim_due(connection, &request)).await?;
        if !unreadable.is_empty() {
            for UnreadableRow { id, reason } in unreadable {
                tracing::error!(id, reason, "a message that cannot be read becomes a dead letter");
            }
            self.losses.increment();
        }
        Ok(claim)
    }
}

/// Claims messages in an open transaction. Also returns the rows that were moved to the dead letters.
fn claim_due(
    connection: &Connection,
    request: &ClaimRequest,
) -> rusqlite::Result<(Claim, Vec<UnreadableRow>)> {
    // In SQLite, a text is greater than every number, so this also corrects a due time that is a text.
    connection
        .prepare_cached("UPDATE messages SET due_ms = ?1 WHERE due_ms > ?2")?
        .execute([request.now_ms, request.latest_valid_due_ms])?;
    // Leased messages are still due, so the query returns them, too. `max_rows` leaves room for them.
    let max_rows = i64::try_from(request.limit + request.leased_ids.len()).unwrap_or(i64::MAX);
    let mut unreadable = Vec::new();
    let mut messages = select_due(connection, SELECT_DUE_MESSAGES, request, max_rows, &mut unreadable)?;
    messages.truncate(request.limit);
    let suspect = select_due(connection, SELECT_DUE_SUSPECTS, request, 1, &mut unreadable)?.pop();
    let mut is_alone = false;
    if let Some(suspect) = suspect
        && is_turn_of_suspect(&suspect, messages.first(), request.started_ms)
    {
        // Until the other deliveries have ended, nothing is claimed.
        is_alone = request.leased_ids.is_empty();
        messages = if is_alone { vec![suspect] } else { Vec::new() };
    }
    let delivery = if is_alone && !request.is_shutting_down { DELIVERED_ALONE } else { DELIVERED_TOGETHER };
    let mut mark =
        connection.prepare_cached("UPDATE messages SET attempts = ?2, delivery = ?3 WHERE id = ?1")?;
    for message in &messages {
        mark.execute(params![message.id, message.attempt, delivery])?;
    }
    let next_due_ms = connection
        .prepare_cached("SELECT CAST(min(due_ms) AS INTEGER) FROM messages WHERE due_ms > ?1")?
        .query_row([request.now_ms], |row| row.get(0))?;
    Ok((Claim { messages, is_alone, next_due_ms }, unreadable))
}

/// Returns the messages that `sql` selects, except for leased ones.
///
/// Moves the rows that are not messages to the dead letters, and adds them to `unreadable`. The query is then
/// repeated, because they have taken the places of other rows.
fn select_due(
    connection: &Connection,
    sql: &str,
    request: &ClaimRequest,
    max_rows: i64,
    unreadable: &mut Vec<UnreadableRow>,
) -> rusqlite::Result<Vec<ClaimedMessage>> {
    loop {
        let mut messages = Vec::new();
        let moved_before = unreadable.len();
        let mut select = connection.prepare_cached(sql)?;
        let mut rows = select.query([request.now_ms, max_rows])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get("id")?;
            if request.leased_ids.contains(&id) {
                continue;
            }
            match parse_claimed_message(id, row) {
                Ok(message) => messages.push(message),
                Err(error) => unreadable.push(UnreadableRow { id, reason: error_chain(&error) }),
            }
        }
        let moved = &unreadable[moved_before..];
        if moved.is_empty() {
            return Ok(messages);
        }
        for UnreadableRow { id, reason } in moved {
            move_to_dead_letters(connection, *id, request.now_ms, reason)?;
        }
    }
}

fn parse_claimed_message(id: i64, row: &Row<'_>) -> Result<ClaimedMessage, UnreadableColumn> {
    Ok(ClaimedMessage {
        id,
        message: parse_message(row)?,
        published_ms: read_column(row, "published_ms")?,
        attempt: read_column(row, "attempt")?,
        failures: read_column(row, "failures")?,
        last_failure: read_column(row, "last_failure")?,
        due_ms: read_column(row, "due_ms")?,
    })
}

/// Returns true if `suspect` is delivered before `other`, the first of the other due messages.
///
/// The messages that were due when the pusher started go first, so that a message that crashes the process
/// does not keep them from being delivered. After that, the due time decides.
fn is_turn_of_suspect(suspect: &ClaimedMessage, other: Option<&ClaimedMessage>, started_ms: i64) -> bool {
    other.is_none_or(|other| {
        other.due_ms > started_ms && (suspect.due_ms, suspect.id) < (other.due_ms, other.id)
    })
}
