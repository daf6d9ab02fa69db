//! Google's public keys, fetched when they are needed and kept.
//!
//! - A set of keys is fresh as long as its Cache-Control says, within bounds. A key of a fresh set is
//!   found without waiting for anything.
//! - Keys are fetched when the set is no longer fresh, or when a token names a key that is not in it.
//!   There is one fetch at a time, on which all wait who need it, and a pause after each, good or
//!   bad: tokens that name made-up keys cannot make more fetches than that.
//! - When a fetch fails, the old keys stay in use, for a day past their time and no longer: after
//!   that, a key that Google took back long ago could still be among them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, StatusCode, header::CACHE_CONTROL};
use jsonwebtoken::DecodingKey;
use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::OwnedMutexGuard,
    time::{Instant, timeout},
};

use super::PushAuthError;
use crate::telemetry::error_chain;

/// How long a set is fresh that does not say so itself.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// No set is fresh for less, whatever it says.
const MIN_LIFETIME: Duration = Duration::from_secs(60);
/// No set is fresh for longer, whatever it says.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// So long past its freshness a set is used when no newer one can be had.
const MAX_STALENESS: Duration = Duration::from_secs(24 * 60 * 60);
/// Largest answer that is read; Google's has some 1,500 bytes.
const MAX_JWKS_BYTES: usize = 1 << 20;

/// The keys by their ids.
type Keys = HashMap<String, Arc<DecodingKey>>;

/// A JSON Web Key Set at an address.
pub(super) struct Jwks {
    shared: Arc<Shared>,
    /// Held by the one fetch under way.
    flight: Arc<tokio::sync::Mutex<()>>,
}

/// What the fetch needs, which runs in a task of its own.
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
    /// When the last fetch ended.
    fetched: Option<Instant>,
}

struct KeySet {
    keys: Keys,
    fresh_until: Instant,
}

impl Jwks {
    pub(super) fn new(
        client: Client,
        url: Url,
        min_refresh_interval: Duration,
        fetch_timeout: Duration,
    ) -> Self {
        let state = Mutex::default();
        let shared = Shared { client, url, min_refresh_interval, fetch_timeout, state };
        Self { shared: Arc::new(shared), flight: Arc::default() }
    }

    /// The key called `key_id`. Waits for a fetch at most as long as that may take.
    pub(super) async fn key(&self, key_id: &str) -> Result<Arc<DecodingKey>, PushAuthError> {
        if let Some(key) = self.shared.fresh_key(key_id) {
            return Ok(key);
        }
        let flight = Arc::clone(&self.flight).lock_owned().await;
        // Whoever waited for the fetch of another finds what that one brought.
        if self.shared.fresh_key(key_id).is_none() && self.shared.may_fetch() {
            // In a task of its own: a caller that goes away must not end a fetch that others wait for.
            let fetch = tokio::spawn(Arc::clone(&self.shared).refresh(flight));
            if let Err(error) = fetch.await {
                tracing::error!(%error, "the fetch of the keys for push tokens ended by itself");
            }
        }
        self.shared.usable_key(key_id)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single assignment, so that a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh_key(&self, key_id: &str) -> Option<Arc<DecodingKey>> {
        let state = self.state();
        let set = state.set.as_ref().filter(|set| Instant::now() < set.fresh_until)?;
        set.keys.get(key_id).cloned()
    }

    fn may_fetch(&self) -> bool {
        self.state().fetched.is_none_or(|fetched| fetched.elapsed() >= self.min_refresh_interval)
    }

    fn usable_key(&self, key_id: &str) -> Result<Arc<DecodingKey>, PushAuthError> {
        let state = self.state();
        match state.set.as_ref().filter(|set| Instant::now() < set.fresh_until + MAX_STALENESS) {
            Some(set) => set.keys.get(key_id).cloned().ok_or(PushAuthError::UnknownKey),
            None => {
                let since = state.fetched.map(|fetched| fetched.elapsed()).unwrap_or_default();
                Err(PushAuthError::KeysUnavailable {
                    retry_after: self.min_refresh_interval.saturating_sub(since),
                })
            }
        }
    }

    /// Fetches the keys; the old ones stay where that fails.
    async fn refresh(self: Arc<Self>, _flight: OwnedMutexGuard<()>) {
        let fetched = match timeout(self.fetch_timeout, self.fetch()).await {
            Ok(fetched) => fetched,
            Err(_) => Err(FetchError::Timeout(self.fetch_timeout)),
        };
        let now = Instant::now();
        match fetched {
            Ok((keys, lifetime)) => {
                tracing::debug!(keys = keys.len(), ?lifetime, "fetched the keys for push tokens");
                let set = KeySet { keys, fresh_until: now + lifetime };
                *self.state() = State { set: Some(set), fetched: Some(now) };
            }
            Err(error) => {
                let url = self.url.as_str();
                tracing::warn!(
                    url,
                    error = error_chain(&error),
                    "the keys for push tokens cannot be fetched"
                );
                self.state().fetched = Some(now);
            }
        }
    }

    async fn fetch(&self) -> Result<(Keys, Duration), FetchError> {
        let mut response = self.client.get(self.url.clone()).send().await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let lifetime = lifetime(response.headers());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_JWKS_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok((parse(&body)?, lifetime))
    }
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the request failed")]
    Request(#[from] reqwest::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the answer is {0}")]
    Status(StatusCode),
    #[error("the answer has more than {MAX_JWKS_BYTES} bytes")]
    TooLarge,
    #[error("the answer is not a JSON Web Key Set")]
    NotJwks(#[from] serde_json::Error),
    #[error("none of the {0} keys is an RSA key for signatures")]
    NoKeys(usize),
}

#[derive(Deserialize)]
struct JwkSet {
    /// Each is read by itself, so that one of a new kind does not spoil the others.
    keys: Vec<Value>,
}

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

/// The keys of a set that signatures with RS256 can be verified with.
fn parse(body: &[u8]) -> Result<Keys, FetchError> {
    let set: JwkSet = serde_json::from_slice(body)?;
    let all = set.keys.len();
    let keys: Keys = set
        .keys
        .into_iter()
        .filter_map(|key| serde_json::from_value::<Jwk>(key).ok())
        .filter(Jwk::verifies_rs256)
        .filter_map(|key| {
            let decoding_key = DecodingKey::from_rsa_components(&key.n, &key.e).ok()?;
            Some((key.kid, Arc::new(decoding_key)))
        })
        .collect();
    if keys.is_empty() { Err(FetchError::NoKeys(all)) } else { Ok(keys) }
}

/// How long an answer is fresh, by the `max-age` of its Cache-Control.
fn lifetime(headers: &HeaderMap) -> Duration {
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
    fn lifetimes() {
        let lifetime = |values: &[&'static str]| {
            let values = values.iter().map(|value| (CACHE_CONTROL, HeaderValue::from_static(value)));
            lifetime(&values.collect()).as_secs()
        };
        assert_eq!(lifetime(&["public, max-age=19800, must-revalidate"]), 19_800);
        assert_eq!(lifetime(&["private,MAX-AGE=600"]), 600);
        assert_eq!(lifetime(&["public", "max-age=601"]), 601);
        for unsaid in
            [&[][..], &["no-store"], &["s-maxage=600"], &["max-age"], &["max-age=-1"], &["max-age=x"]]
        {
            assert_eq!(lifetime(unsaid), 3600, "{unsaid:?}");
        }
        assert_eq!(lifetime(&["max-age=0"]), 60);
        assert_eq!(lifetime(&["max-age=59"]), 60);
        assert_eq!(lifetime(&["max-age=86401"]), 86_400);
        assert_eq!(lifetime(&["max-age=18446744073709551615"]), 86_400);
    }
}
