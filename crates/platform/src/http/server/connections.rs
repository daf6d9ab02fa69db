//! [`Connections`] is the table of a server's open connections. It decides which of them are closed.
//!
//! A connection is idle while it has no request in progress. A connection whose first request has not arrived
//! completely is idle, too. If there are too many connections, the one that has been idle longest is closed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};

use super::settings::{ConnectionLimits, MAX_CLOSING_CONNECTIONS, RESERVED_CONNECTIONS};

/// Reason why a connection ended. The metric `http_connections_closed_total` has it as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// The client closed the connection, or it ended after a response.
    Ended,
    /// The connection failed, for example because the request was not valid HTTP.
    Failed,
    /// The head of a request did not arrive in time.
    HeadTimeout,
    /// No request arrived for too long.
    IdleTimeout,
    /// The client did not receive the response in time.
    WriteTimeout,
    /// A newer connection needed the place.
    Replaced,
    /// The server drained while the connection was idle.
    Draining,
    /// The drain timeout ended while a request was in progress.
    DrainTimeout,
}

impl CloseReason {
    fn name(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Failed => "failed",
            Self::HeadTimeout => "head_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::Replaced => "replaced",
            Self::Draining => "draining",
            Self::DrainTimeout => "drain_timeout",
        }
    }
}

/// The open connections of a server. Clones share the table.
#[derive(Clone, Debug)]
pub(super) struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    service: &'static str,
    limits: ConnectionLimits,
    table: Mutex<Table>,
    /// Notified when a connection becomes idle.
    became_idle: Notify,
}

#[derive(Debug, Default)]
struct Table {
    connections: HashMap<u64, Entry>,
    /// Ids of the idle connections. The connection with the smallest key has been idle longest.
    idle: BTreeMap<u64, u64>,
    /// Number of connections that were told to close and still exist.
    closing_count: usize,
    /// Next id, or next key of `idle`.
    next_number: u64,
}

/// State of a connection.
#[derive(Debug)]
struct Entry {
    activity: Activity,
    request_count: usize,
    /// Time at which the client stopped receiving. `None` if everything has been sent.
    unsent_since: Option<Instant>,
    /// Notified when the connection must close.
    close: Arc<Notify>,
}

#[derive(Clone, Copy, Debug)]
enum Activity {
    /// A request is in progress, or its response is being sent.
    Busy,
    Idle {
        /// Key of the connection in [`Table::idle`].
        order: u64,
        since: Instant,
        /// Time from which the head timeout counts. `None` while nothing of the next request has arrived.
        head_since: Option<Instant>,
    },
    /// The connection was told to close. It starts no further request.
    Closing(CloseReason),
}

impl Connections {
    /// Creates an empty table. `service` is the label `service` of the metrics.
    pub(super) fn new(service: &'static str, limits: ConnectionLimits) -> Self {
        Self(Arc::new(Shared { service, limits, table: Mutex::default(), became_idle: Notify::new() }))
    }

    /// Returns true if a connection can be accepted.
    ///
    /// Connections that were told to close still have a descriptor, so their number is limited, too.
    pub(super) fn has_room(&self) -> bool {
        let table = self.0.lock();
        let max_open = self.0.limits.max_connections.saturating_add(RESERVED_CONNECTIONS);
        table.closing_count < MAX_CLOSING_CONNECTIONS
            && (table.open_count() < max_open || !table.idle.is_empty())
    }

    /// Waits until a connection has become idle since the last call. It can be replaced, which makes room.
    pub(super) async fn wait_until_one_becomes_idle(&self) {
        self.0.became_idle.notified().await;
    }

    /// Adds a connection. If there are more than the maximum, closes the one that has been idle longest.
    pub(super) fn open(&self) -> OpenConnection {
        let shared = &self.0;
        let max_connections = shared.limits.max_connections;
        let mut table = shared.lock();
        if table.open_count() >= max_connections {
            table.close_oldest_idle(CloseReason::Replaced);
        }
        let is_reserved = table.open_count() >= max_connections;
        let id = table.next_number();
        let order = table.next_number();
        let now = Instant::now();
        let close = Arc::new(Notify::new());
        let entry = Entry {
            // The time until the first byte is part of the head timeout, because a client that connects has a
            // request to send.
            activity: Activity::Idle { order, since: now, head_since: Some(now) },
            request_count: 0,
            unsent_since: None,
            close: Arc::clone(&close),
        };
        table.connections.insert(id, entry);
        table.idle.insert(order, id);
        shared.set_gauge(&table);
        drop(table);
        let monitor = ConnectionMonitor { shared: Arc::clone(shared), id };
        OpenConnection { monitor, close, is_reserved, reason: CloseReason::DrainTimeout }
    }

    /// Closes the connection that has been idle longest, if there is an idle one.
    pub(super) fn close_oldest_idle(&self) {
        self.0.lock().close_oldest_idle(CloseReason::Replaced);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the connection `id` busy or idle, after its requests or its unsent bytes have changed.
    fn update_activity(&self, table: &mut Table, id: u64) {
        if table.update_activity(id) {
            self.became_idle.notify_one();
        }
    }

    fn set_gauge(&self, table: &Table) {
        let count = u32::try_from(table.connections.len()).unwrap_or(u32::MAX);
        metrics::gauge!("http_connections", "service" => self.service).set(count);
    }
}

impl Table {
    /// Returns the number of connections that were not told to close.
    fn open_count(&self) -> usize {
        self.connections.len() - self.closing_count
    }

    fn next_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Tells the connection that has been idle longest to close, if there is an idle one.
    fn close_oldest_idle(&mut self, reason: CloseReason) {
        if let Some((_, &id)) = self.idle.first_key_value() {
            self.close(id, reason);
        }
    }

    /// Tells the connection `id` to close, unless it was told before.
    fn close(&mut self, id: u64, reason: CloseReason) {
        let Some(entry) = self.connections.get_mut(&id) else { return };
        match entry.activity {
            Activity::Closing(_) => return,
            Activity::Idle { order, .. } => {
                self.idle.remove(&order);
            }
            Activity::Busy => {}
        }
        entry.activity = Activity::Closing(reason);
        entry.close.notify_one();
        self.closing_count += 1;
    }

    /// Makes the connection `id` busy or idle, after its requests or its unsent bytes have changed. Returns
    /// true if the connection has become idle.
    fn update_activity(&mut self, id: u64) -> bool {
        let order = self.next_number();
        let Some(entry) = self.connections.get_mut(&id) else { return false };
        let is_busy = entry.request_count > 0 || entry.unsent_since.is_some();
        match (entry.activity, is_busy) {
            (Activity::Idle { order, .. }, true) => {
                self.idle.remove(&order);
                entry.activity = Activity::Busy;
                false
            }
            (Activity::Busy, false) => {
                self.idle.insert(order, id);
                entry.activity = Activity::Idle { order, since: Instant::now(), head_since: None };
                true
            }
            _ => false,
        }
    }
}

impl Entry {
    /// Returns the time at which this connection must be closed if nothing happens until then, and the reason.
    fn deadline(&self, limits: &ConnectionLimits) -> Option<(Instant, CloseReason)> {
        match self.activity {
            Activity::Busy => {
                let unsent_since = self.unsent_since?;
                Some((unsent_since + limits.write_timeout, CloseReason::WriteTimeout))
            }
            Activity::Idle { head_since: Some(since), .. } => {
                Some((since + limits.head_timeout, CloseReason::HeadTimeout))
            }
            Activity::Idle { since, .. } => Some((since + limits.idle_timeout, CloseReason::IdleTimeout)),
            Activity::Closing(_) => None,
        }
    }
}

/// Reports to the table what happens on a connection. Clones report on the same connection.
#[derive(Clone, Debug)]
pub(super) struct ConnectionMonitor {
    shared: Arc<Shared>,
    id: u64,
}

impl ConnectionMonitor {
    /// Records that bytes have arrived. If the connection is idle, the head of a request begins.
    pub(super) fn record_received(&self) {
        if let Some(Entry { activity: Activity::Idle { head_since, .. }, .. }) =
            self.shared.lock().connections.get_mut(&self.id)
        {
            head_since.get_or_insert_with(Instant::now);
        }
    }

    /// Records whether bytes wait to be sent.
    pub(super) fn record_unsent(&self, is_unsent: bool) {
        let mut table = self.shared.lock();
        let Some(entry) = table.connections.get_mut(&self.id) else { return };
        if entry.unsent_since.is_some() != is_unsent {
            entry.unsent_since = is_unsent.then(Instant::now);
            self.shared.update_activity(&mut table, self.id);
        }
    }

    /// Records that a request begins. Returns `None` if the connection is closing.
    pub(super) fn begin_request(&self) -> Option<RequestInProgress> {
        let mut table = self.shared.lock();
        let entry = table.connections.get_mut(&self.id)?;
        if matches!(entry.activity, Activity::Closing(_)) {
            return None;
        }
        entry.request_count += 1;
        self.shared.update_activity(&mut table, self.id);
        Some(RequestInProgress(self.clone()))
    }
}

/// A request in progress. Dropping it records that the request has been answered.
#[derive(Debug)]
pub(super) struct RequestInProgress(ConnectionMonitor);

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        let ConnectionMonitor { shared, id } = &self.0;
        let mut table = shared.lock();
        if let Some(entry) = table.connections.get_mut(id) {
            entry.request_count -= 1;
            shared.update_activity(&mut table, *id);
        }
    }
}

/// A connection in the table. Dropping it removes the connection.
#[derive(Debug)]
pub(super) struct OpenConnection {
    monitor: ConnectionMonitor,
    close: Arc<Notify>,
    is_reserved: bool,
    reason: CloseReason,
}

impl OpenConnection {
    /// Returns true if the connection exceeds the maximum, because no other connection was idle.
    pub(super) fn is_reserved(&self) -> bool {
        self.is_reserved
    }

    pub(super) fn monitor(&self) -> ConnectionMonitor {
        self.monitor.clone()
    }

    /// Waits until the table tells the connection to close.
    pub(super) async fn wait_until_told_to_close(&self) -> CloseReason {
        loop {
            self.close.notified().await;
            if let Some(reason) = self.closing_reason() {
                return reason;
            }
        }
    }

    fn closing_reason(&self) -> Option<CloseReason> {
        let table = self.monitor.shared.lock();
        match table.connections.get(&self.monitor.id)?.activity {
            Activity::Closing(reason) => Some(reason),
            Activity::Busy | Activity::Idle { .. } => None,
        }
    }

    /// Returns the time at which [`Self::close_if_expired`] must be called next.
    ///
    /// The activity may change before that time. A deadline that follows from the change is at least the
    /// shortest timeout away, so that no deadline is missed.
    pub(super) fn next_check(&self) -> Instant {
        let ConnectionMonitor { shared, id } = &self.monitor;
        let limits = &shared.limits;
        let shortest = limits.head_timeout.min(limits.idle_timeout).min(limits.write_timeout);
        let latest = Instant::now() + shortest;
        let deadline = shared.lock().connections.get(id).and_then(|entry| entry.deadline(limits));
        deadline.map_or(latest, |(deadline, _)| deadline.min(latest))
    }

    /// Tells the connection to close if a timeout has passed.
    pub(super) fn close_if_expired(&self) {
        let ConnectionMonitor { shared, id } = &self.monitor;
        let mut table = shared.lock();
        let deadline = table.connections.get(id).and_then(|entry| entry.deadline(&shared.limits));
        if let Some((deadline, reason)) = deadline
            && deadline <= Instant::now()
        {
            table.close(*id, reason);
        }
    }

    /// Tells the connection to close if it is idle. Returns true if it was idle.
    pub(super) fn close_if_idle(&self, reason: CloseReason) -> bool {
        let ConnectionMonitor { shared, id } = &self.monitor;
        let mut table = shared.lock();
        let is_idle =
            table.connections.get(id).is_some_and(|entry| matches!(entry.activity, Activity::Idle { .. }));
        if is_idle {
            table.close(*id, reason);
        }
        is_idle
    }

    /// Removes the connection from the table and counts it under `reason`.
    pub(super) fn end(mut self, reason: CloseReason) {
        self.reason = reason;
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let ConnectionMonitor { shared, id } = &self.monitor;
        let mut table = shared.lock();
        if let Some(entry) = table.connections.remove(id) {
            match entry.activity {
                Activity::Idle { order, .. } => {
                    table.idle.remove(&order);
                }
                Activity::Closing(_) => table.closing_count -= 1,
                Activity::Busy => {}
            }
        }
        shared.set_gauge(&table);
        let (service, reason) = (shared.service, self.reason.name());
        metrics::counter!("http_connections_closed_total", "service" => service, "reason" => reason)
            .increment(1);
    }
}
