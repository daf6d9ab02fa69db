//! A [`MemoryBudget`] bounds the memory of concurrent jobs. A job reserves its bytes before it allocates
//! them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::oneshot, time::timeout};

/// The share for small requests is at most this fraction of the budget.
const SMALL_SHARE_DIVISOR: u64 = 8;

/// A request is small if this many of it fit in the share for small requests.
const SMALL_REQUESTS_PER_SHARE: u64 = 4;

/// Limits of a [`MemoryBudget`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryBudgetLimits {
    /// Maximum number of bytes that are reserved at the same time.
    pub max_bytes: u64,
    /// Maximum number of bytes of one reservation, at most `max_bytes`.
    ///
    /// An eighth of the budget is set aside for small requests, or less if such a reservation needs more
    /// than the rest.
    pub max_reservation_bytes: u64,
    /// Maximum number of callers that wait in each share without holding memory of this budget.
    pub max_waiting: usize,
    /// Maximum time that a caller waits for memory.
    pub wait_timeout: Duration,
}

/// Reason why memory was not reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemoryBudgetError {
    /// The caller requested more bytes than one reservation may have. The same call always fails.
    #[error("the request is larger than the memory budget")]
    ExceedsBudget,
    /// The maximum number of callers is waiting already. The same call may succeed later.
    #[error("the queue for memory is full")]
    Overloaded,
    /// Not enough memory was released in time. The same call may succeed later.
    #[error("not enough memory was released in time")]
    TimedOut,
}

/// A bounded number of bytes that jobs can reserve.
///
/// **Shares.** A part of the budget is set aside for small requests, so that they are never queued behind
/// large ones. A small request also uses the rest of the budget while nobody waits for that. A large
/// request uses only the rest, and small requests cannot starve it: in each share, waiting callers get their
/// bytes in the order of their calls.
///
/// **Growth.** A reservation can grow up to a maximum that it states at the start. Growing reservations never
/// wait for each other forever. The budget grants bytes only if afterwards the open reservations could still
/// reach their maxima one after another: the first with the free bytes, the next also with the bytes that the
/// first releases, and so on (the banker's algorithm). The bytes that the most advanced reservation needs to
/// finish are therefore never given to another one.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    shares: Mutex<Shares>,
    /// Maximum number of bytes of a small request.
    max_small_bytes: u64,
    max_waiting: usize,
    wait_timeout: Duration,
    gauge_name: Arc<str>,
    purpose: &'static str,
}

/// The two shares of a budget.
#[derive(Debug)]
struct Shares {
    /// Share for requests of any size.
    common: Share,
    /// Share for small requests.
    small: Share,
}

/// Name of a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShareName {
    Common,
    Small,
}

/// A share of the budget with its open reservations.
#[derive(Debug)]
struct Share {
    total_bytes: u64,
    free_bytes: u64,
    /// The open reservations, oldest first.
    accounts: BTreeMap<u64, Account>,
    next_id: u64,
}

/// The state of a reservation.
#[derive(Debug)]
struct Account {
    held_bytes: u64,
    /// Number of bytes up to which the reservation may grow.
    max_bytes: u64,
    /// The growth that the reservation waits for.
    pending_growth: Option<PendingGrowth>,
}

#[derive(Debug)]
struct PendingGrowth {
    target_bytes: u64,
    granted: oneshot::Sender<()>,
}

impl Account {
    fn is_waiting_to_begin(&self) -> bool {
        self.pending_growth.is_some() && self.held_bytes == 0
    }

    fn is_waiting_to_continue(&self) -> bool {
        self.pending_growth.is_some() && self.held_bytes > 0
    }
}

impl MemoryBudget {
    /// Creates a budget. The number of reserved bytes is the gauge `<name>_memory_bytes`, whose label `for`
    /// has the value `purpose`.
    pub fn new(name: &str, purpose: &'static str, limits: &MemoryBudgetLimits) -> Self {
        let MemoryBudgetLimits { max_bytes, max_reservation_bytes, max_waiting, wait_timeout } = *limits;
        let small_bytes =
            (max_bytes / SMALL_SHARE_DIVISOR).min(max_bytes.saturating_sub(max_reservation_bytes));
        let shares = Shares { common: Share::new(max_bytes - small_bytes), small: Share::new(small_bytes) };
        Self {
            shared: Arc::new(Shared {
                shares: Mutex::new(shares),
                max_small_bytes: small_bytes / SMALL_REQUESTS_PER_SHARE,
                max_waiting,
                wait_timeout,
                gauge_name: format!("{name}_memory_bytes").into(),
                purpose,
            }),
        }
    }

    /// Reserves `bytes` bytes. If fewer bytes are free, the caller waits in a queue.
    ///
    /// Dropping the future removes the caller from the queue.
    ///
    /// # Errors
    /// Returns a [`MemoryBudgetError`] if the bytes cannot be reserved.
    pub async fn reserve(&self, bytes: u64) -> Result<MemoryReservation, MemoryBudgetError> {
        self.reserve_growing(bytes, bytes).await
    }

    /// Reserves `bytes` bytes, and lets [`MemoryReservation::grow_to`] increase the reservation to at most
    /// `max_bytes` bytes.
    ///
    /// # Errors
    /// Returns a [`MemoryBudgetError`] if `bytes` bytes cannot be reserved, and
    /// [`MemoryBudgetError::ExceedsBudget`] if `max_bytes` bytes could never be reserved.
    pub async fn reserve_growing(
        &self,
        bytes: u64,
        max_bytes: u64,
    ) -> Result<MemoryReservation, MemoryBudgetError> {
        let (reservation, pending) = self.open_reservation(bytes, max_bytes)?;
        if let Some(granted) = pending {
            reservation.wait_for(granted).await?;
        }
        Ok(reservation)
    }

    /// Opens a reservation in the share that can serve it first. Returns a receiver of the grant if the
    /// caller has to wait.
    fn open_reservation(
        &self,
        bytes: u64,
        max_bytes: u64,
    ) -> Result<(MemoryReservation, Option<oneshot::Receiver<()>>), MemoryBudgetError> {
        let shared = &self.shared;
        let mut shares = shared.lock_shares();
        let names: &[ShareName] = match max_bytes <= shared.max_small_bytes {
            true => &[ShareName::Small, ShareName::Common],
            false => &[ShareName::Common],
        };
        let begun =
            names.iter().find_map(|&name| Some((name, shares.get_mut(name).begin(bytes, max_bytes)?)));
        let (share_name, id, pending) = match (begun, names) {
            (Some((name, id)), _) => (name, id, None),
            (None, &[name, ..]) => {
                let share = shares.get_mut(name);
                if max_bytes > share.total_bytes {
                    return Err(MemoryBudgetError::ExceedsBudget);
                }
                if share.accounts.values().filter(|account| account.is_waiting_to_begin()).count()
                    >= shared.max_waiting
                {
                    return Err(MemoryBudgetError::Overloaded);
                }
                let id = share.open_account(max_bytes);
                (name, id, share.request_growth(id, bytes))
            }
            (None, []) => return Err(MemoryBudgetError::ExceedsBudget),
        };
        shared.set_gauge(&shares);
        drop(shares);
        Ok((MemoryReservation { id, share_name, shared: Arc::clone(shared) }, pending))
    }

    /// Returns the number of bytes that are reserved now.
    #[cfg(any(test, feature = "testing"))]
    pub fn reserved_bytes(&self) -> u64 {
        self.shared.lock_shares().reserved_bytes()
    }
}

impl Shares {
    fn get_mut(&mut self, name: ShareName) -> &mut Share {
        match name {
            ShareName::Common => &mut self.common,
            ShareName::Small => &mut self.small,
        }
    }

    fn reserved_bytes(&self) -> u64 {
        [&self.common, &self.small].iter().map(|share| share.total_bytes - share.free_bytes).sum()
    }
}

impl Share {
    fn new(total_bytes: u64) -> Self {
        Self { total_bytes, free_bytes: total_bytes, accounts: BTreeMap::new(), next_id: 0 }
    }

    fn open_account(&mut self, max_bytes: u64) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.accounts.insert(id, Account { held_bytes: 0, max_bytes, pending_growth: None });
        id
    }

    /// Opens an account with `bytes` bytes and returns its id, unless the bytes would have to be waited for.
    fn begin(&mut self, bytes: u64, max_bytes: u64) -> Option<u64> {
        let id = self.open_account(max_bytes);
        if self.request_growth(id, bytes).is_some() {
            self.accounts.remove(&id);
            return None;
        }
        Some(id)
    }

    /// Grants the growth of a reservation to `target_bytes` bytes, or returns a receiver of the later grant.
    fn request_growth(&mut self, id: u64, target_bytes: u64) -> Option<oneshot::Receiver<()>> {
        let account = self.accounts.get_mut(&id)?;
        let (granted, receiver) = oneshot::channel();
        account.pending_growth = Some(PendingGrowth { target_bytes, granted });
        self.serve_waiting();
        self.accounts.get(&id)?.pending_growth.as_ref().map(|_| receiver)
    }

    /// Grants the pending growths that can be granted now.
    ///
    /// Reservations that already hold memory come first, because the others get their memory only when these
    /// finish. A reservation that holds none yet waits for every older one.
    fn serve_waiting(&mut self) {
        let select = |accounts: &BTreeMap<u64, Account>, is_waiting: fn(&Account) -> bool| -> Vec<u64> {
            accounts.iter().filter(|(_, account)| is_waiting(account)).map(|(&id, _)| id).collect()
        };
        for id in select(&self.accounts, Account::is_waiting_to_continue) {
            self.try_grant(id);
        }
        if self.accounts.values().any(Account::is_waiting_to_continue) {
            return;
        }
        for id in select(&self.accounts, Account::is_waiting_to_begin) {
            if !self.try_grant(id) {
                return;
            }
        }
    }

    /// Grants the pending growth of a reservation if that is safe. Returns true if the growth was granted.
    fn try_grant(&mut self, id: u64) -> bool {
        let Some(account) = self.accounts.get(&id) else { return false };
        let Some(PendingGrowth { target_bytes, .. }) = account.pending_growth else { return false };
        let added_bytes = target_bytes.saturating_sub(account.held_bytes);
        if added_bytes > self.free_bytes || !self.is_safe_after_growth(id, added_bytes) {
            return false;
        }
        self.free_bytes -= added_bytes;
        if let Some(account) = self.accounts.get_mut(&id) {
            account.held_bytes += added_bytes;
            if let Some(pending_growth) = account.pending_growth.take() {
                // Sending fails if the caller has given up in the meantime. The bytes are released when the
                // reservation is dropped.
                let _ = pending_growth.granted.send(());
            }
        }
        true
    }

    /// Returns true if every reservation could still reach its maximum, one after another, when reservation
    /// `id` has grown by `added_bytes`.
    fn is_safe_after_growth(&self, id: u64, added_bytes: u64) -> bool {
        let mut available_bytes = self.free_bytes.saturating_sub(added_bytes);
        let mut growing: Vec<(u64, u64)> = Vec::new();
        for (&other_id, account) in &self.accounts {
            let held_bytes = account.held_bytes + if other_id == id { added_bytes } else { 0 };
            match account.max_bytes.saturating_sub(held_bytes) {
                0 => available_bytes += held_bytes,
                missing_bytes => growing.push((missing_bytes, held_bytes)),
            }
        }
        growing.sort_unstable();
        for (missing_bytes, held_bytes) in growing {
            if missing_bytes > available_bytes {
                return false;
            }
            available_bytes += held_bytes;
        }
        true
    }
}

impl Shared {
    fn lock_shares(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::cast_precision_loss, reason = "exact up to 8 PiB, far beyond any budget")]
    fn set_gauge(&self, shares: &Shares) {
        metrics::gauge!(Arc::clone(&self.gauge_name), "for" => self.purpose)
            .set(shares.reserved_bytes() as f64);
    }
}

/// Bytes that are reserved from a [`MemoryBudget`]. Dropping the reservation releases them.
#[derive(Debug)]
pub struct MemoryReservation {
    id: u64,
    share_name: ShareName,
    shared: Arc<Shared>,
}

/// Removes the pending growth of a reservation when it is dropped.
struct WaitGuard<'a>(&'a MemoryReservation);

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.0.update_share(|share, id| {
            let account = share.accounts.get_mut(&id);
            if account.is_some_and(|account| account.pending_growth.take().is_some()) {
                // This reservation may have been in the way of younger ones.
                share.serve_waiting();
            }
        });
    }
}

impl MemoryReservation {
    /// Increases the reservation to `bytes` bytes. This does nothing if the reservation is already larger.
    ///
    /// Dropping the future ends the wait. The reservation then keeps the bytes that it has.
    ///
    /// # Errors
    /// Returns [`MemoryBudgetError::ExceedsBudget`] if `bytes` exceeds the maximum that the reservation
    /// stated at the start, and [`MemoryBudgetError::TimedOut`] if not enough bytes were released in time.
    pub async fn grow_to(&mut self, bytes: u64) -> Result<(), MemoryBudgetError> {
        let request = |share: &mut Share, id: u64| match share.accounts.get(&id) {
            Some(account) if bytes <= account.held_bytes => Ok(None),
            Some(account) if bytes <= account.max_bytes => Ok(share.request_growth(id, bytes)),
            _ => Err(MemoryBudgetError::ExceedsBudget),
        };
        let Some(granted) = self.update_share(request)? else { return Ok(()) };
        self.wait_for(granted).await
    }

    /// Waits until the pending growth is granted. The growth is no longer pending afterwards.
    async fn wait_for(&self, granted: oneshot::Receiver<()>) -> Result<(), MemoryBudgetError> {
        let _guard = WaitGuard(self);
        match timeout(self.shared.wait_timeout, granted).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(MemoryBudgetError::TimedOut),
        }
    }

    /// Reduces the reservation to `bytes` bytes, and ends its growth. This keeps the bytes of a reservation
    /// that is already smaller.
    pub fn shrink_to(&mut self, bytes: u64) {
        self.update_share(|share, id| {
            let Some(account) = share.accounts.get_mut(&id) else { return };
            let released_bytes = account.held_bytes.saturating_sub(bytes);
            account.held_bytes -= released_bytes;
            account.max_bytes = account.held_bytes;
            share.free_bytes += released_bytes;
            share.serve_waiting();
        });
    }

    /// Calls `update` with the share of this reservation and the id of its account, and updates the gauge.
    fn update_share<T>(&self, update: impl FnOnce(&mut Share, u64) -> T) -> T {
        let mut shares = self.shared.lock_shares();
        let result = update(shares.get_mut(self.share_name), self.id);
        self.shared.set_gauge(&shares);
        result
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.update_share(|share, id| {
            if let Some(account) = share.accounts.remove(&id) {
                share.free_bytes += account.held_bytes;
                share.serve_waiting();
            }
        });
    }
}

/// Bytes together with the memory that is reserved for them.
#[derive(Debug)]
pub struct ReservedBytes {
    /// The bytes.
    pub bytes: Bytes,
    /// The reservation, which is dropped after the bytes.
    pub reservation: MemoryReservation,
}

#[cfg(test)]
mod tests;
