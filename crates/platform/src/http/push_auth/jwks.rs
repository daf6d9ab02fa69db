//! [`JwksCache`] caches the public keys of Google.
//!
//! - A set of keys is fresh for the `max-age` in the header Cache-Control of the response that contained the
//!   set, but at least a minute and at most a day. The cache returns a key of a fresh set at once.
//! - The cache fetches the keys when the set is no longer fresh, or when a token names a key that is not in
//!   the set. All callers wait for the same fetch. After every fetch, successful or not, the cache does not
//!   fetch again for `min_refresh_interval`, so that tokens with invented key ids cannot cause many fetches.
//! - A set that is no longer fresh is stale. While fetches fail, the cache uses a stale set for one more day.
//!   It does not use the set for longer, because Google may have revoked one of the keys.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, StatusCode, header::CACHE_CONTROL};
use jsonwebtoken::DecodingKey;
use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    sync::OwnedMutexGuard,
    time::{Instant, timeout},
};

use super::PushAuthError;
use crate::telemetry::error_chain;

/// Time for which a set is fresh if its response has no `max-age`.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Minimum time for which a set is fresh, even if the `max-age` is shorter. It bounds the number of fetches.
const MIN_LIFETIME: Duration = Duration::from_secs(60);
/// Maximum time for which a set is fresh, even if the `max-age` is longer. It bounds how long the cache keeps
/// a key that Google has revoked.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum time for which a stale set is used while fetches fail.
const MAX_STALENESS: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum size of a set in bytes. The set of Google has about 1,500 bytes.
const MAX_JWKS_BYTES: usize = 1 << 20;

/// Keys, keyed by their ids.
type KeysById = HashMap<String, Arc<DecodingKey>>;

/// A cache of the JSON Web Key Set at an address.
pub(super) struct JwksCache {
    shared: Arc<Shared>,
    /// Lock that a fetch holds while it runs, so that there is one fetch at a time.
    fetch_lock: Arc<tokio::sync::Mutex<()>>,
}

/// State that the cache shares with its fetches, each of which runs in its own task.
struct Shared {
    client: Client,
    url: Url,
    min_refresh_interval: Duration,
    fetch_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    set: Option<KeySet>,
    /// Time at which the last fetch ended.
    last_fetch_end: Option<Instant>,
}

struct KeySet {
    keys: KeysById,
    fresh_until: Instant,
}

impl JwksCache {
    pub(super) fn new(
        client: Client,
        url: Url,
        min_refresh_interval: Duration,
        fetch_timeout: Duration,
    ) -> Self {
        let state = Mutex::default();
        let shared = Shared { client, url, min_refresh_interval, fetch_timeout, state };
        Self { shared: Arc::new(shared), fetch_lock: Arc::default() }
    }

    /// Returns the key with the id `key_id`. If necessary, this method fetches the keys first.
    pub(super) async fn find_key(&self, key_id: &str) -> Result<Arc<DecodingKey>, PushAuthError> {
        if let Some(key) = self.shared.fresh_key(key_id) {
            return Ok(key);
        }
        let fetch_guard = Arc::clone(&self.fetch_lock).lock_owned().await;
        // Another caller may have fetched the key while this caller waited for the lock.
        if self.shared.fresh_key(key_id).is_none() && self.shared.may_fetch() {
            // The fetch runs in its own task, so that it continues for the other callers if this caller drops
            // its future.
            let fetch = tokio::spawn(Arc::clone(&self.shared).refresh(fetch_guard));
            if let Err(error) = fetch.await {
                tracing::error!(%error, "the task that fetches the keys for push tokens panicked");
            }
        }
        self.shared.usable_key(key_id)
    }
}

impl Shared {
    fn lock_state(&self) -> MutexGuard<'_, State> {
        // The state behind a poisoned lock is still valid, because every change is a single assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the key with the id `key_id` if the set is fresh and contains it.
    fn fresh_key(&self, key_id: &str) -> Option<Arc<DecodingKey>> {
        let state = self.lock_state();
        let set = state.set.as_ref().filter(|set| Instant::now() < set.fresh_until)?;
        set.keys.get(key_id).cloned()
    }

    /// Returns true if `min_refresh_interval` has passed since the last fetch.
    fn may_fetch(&self) -> bool {
        self.lock_state().last_fetch_end.is_none_or(|end| end.elapsed() >= self.min_refresh_interval)
    }

    /// Returns the key with the id `key_id`. The set may be stale, but for no longer than [`MAX_STALENESS`].
    fn usable_key(&self, key_id: &str) -> Result<Arc<DecodingKey>, PushAuthError> {
        let state = self.lock_state();
        match state.set.as_ref().filter(|set| Instant::now() < set.fresh_until + MAX_STALENESS) {
            Some(set) => set.keys.get(key_id).cloned().ok_or(PushAuthError::UnknownKey),
            None => {
                let elapsed = state.last_fetch_end.map(|end| end.elapsed()).unwrap_or_default();
                Err(PushAuthError::KeysUnavailable {
                    retry_after: self.min_refresh_interval.saturating_sub(elapsed),
                })
            }
        }
    }

    /// Fetches the keys and replaces the set. If the fetch fails, the old set stays.
    ///
    /// `_fetch_guard` holds the fetch lock until this method returns.
    async fn refresh(self: Arc<Self>, _fetch_guard: OwnedMutexGuard<()>) {
        let result = match timeout(self.fetch_timeout, self.fetch()).await {
            Ok(result) => result,
            Err(_) => Err(FetchError::Timeout(self.fetch_timeout)),
        };
        let now = Instant::now();
        match result {
            Ok((keys, lifetime)) => {
                tracing::debug!(keys = keys.len(), ?lifetime, "fetched the keys for push tokens");
                let set = KeySet { keys, fresh_until: now + lifetime };
                *self.lock_state() = State { set: Some(set), last_fetch_end: Some(now) };
            }
            Err(error) => {
                let url = self.url.as_str();
                tracing::warn!(
                    url,
                    error = error_chain(&error),
                    "the keys for push tokens cannot be fetched"
                );
                self.lock_state().last_fetch_end = Some(now);
            }
        }
    }

    async fn fetch(&self) -> Result<(KeysById, Duration), FetchError> {
        let mut response = self.client.get(self.url.clone()).send().await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let lifetime = lifetime_from(response.headers());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_JWKS_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok((parse_keys(&body)?, lifetime))
    }
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the request failed")]
    Request(#[from] reqwest::Error),
    #[error("no response within {0:?}")]
    Timeout(Duration),
    #[error("the response has the status {0}")]
    Status(StatusCode),
    #[error("the response has more than {MAX_JWKS_BYTES} bytes")]
    TooLarge,
    #[error("the response is not a JSON Web Key Set")]
    NotJwks(#[from] serde_json::Error),
    #[error("none of the {0} keys is an RSA key for signatures")]
    NoKeys(usize),
}

#[derive(Deserialize)]
struct JwkSet<'a> {
    /// The keys as JSON. Each key is deserialized separately, so that a key of an unknown type does not
    /// invalidate the other keys.
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// A public key (RFC 7517). `kty` is the type of the key, `kid` its id, `use` its purpose and `alg` its
/// algorithm. For an RSA key, `n` is the modulus and `e` the exponent, both in base64url.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    r#use: Option<String>,
    alg: Option<String>,
    n: String,
    e: String,
}

impl Jwk {
    fn verifies_rs256(&self) -> bool {
        self.kty == "RSA"
            && self.r#use.as_deref().is_none_or(|purpose| purpose == "sig")
            && self.alg.as_deref().is_none_or(|algorithm| algorithm == "RS256")
    }
}

/// Returns the keys in the JSON Web Key Set `body` that can verify RS256 signatures.
fn parse_keys(body: &[u8]) -> Result<KeysById, FetchError> {
    let set: JwkSet<'_> = serde_json::from_slice(body)?;
    let key_count = set.keys.len();
    let keys: KeysById = set
        .keys
        .into_iter()
        .filter_map(|key| serde_json::from_str::<Jwk>(key.get()).ok())
        .filter(Jwk::verifies_rs256)
        .filter_map(|key| {
            let decoding_key = DecodingKey::from_rsa_components(&key.n, &key.e).ok()?;
            Some((key.kid, Arc::new(decoding_key)))
        })
        .collect();
    if keys.is_empty() { Err(FetchError::NoKeys(key_count)) } else { Ok(keys) }
}

/// Returns the time for which a set is fresh. It is the `max-age` in Cache-Control, limited to the range from
/// [`MIN_LIFETIME`] to [`MAX_LIFETIME`].
fn lifetime_from(headers: &HeaderMap) -> Duration {
    headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|directive| {
            let (name, seconds) = directive.trim().split_once('=')?;
            name.eq_ignore_ascii_case("max-age").then(|| seconds.parse().ok()).flatten()
        })
        .map_or(DEFAULT_LIFETIME, Duration::from_secs)
        .clamp(MIN_LIFETIME, MAX_LIFETIME)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn max_age_is_bounded_and_has_a_default() {
        let lifetime = |values: &[&'static str]| {
            let values = values.iter().map(|value| (CACHE_CONTROL, HeaderValue::from_static(value)));
            lifetime_from(&values.collect()).as_secs()
        };
        assert_eq!(lifetime(&["public, max-age=19800, must-revalidate"]), 19_800);
        assert_eq!(lifetime(&["private,MAX-AGE=600"]), 600);
        assert_eq!(lifetime(&["public", "max-age=601"]), 601);
        for without_max_age in
            [&[][..], &["no-store"], &["s-maxage=600"], &["max-age"], &["max-age=-1"], &["max-age=x"]]
        {
            assert_eq!(lifetime(without_max_age), 3600, "{without_max_age:?}");
        }
        assert_eq!(lifetime(&["max-age=0"]), 60);
        assert_eq!(lifetime(&["max-age=59"]), 60);
        assert_eq!(lifetime(&["max-age=86401"]), 86_400);
        assert_eq!(lifetime(&["max-age=18446744073709551615"]), 86_400);
    }
}
