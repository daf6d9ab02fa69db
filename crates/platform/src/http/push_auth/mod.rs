//! Who may push: the OpenID Connect token that Pub/Sub sends with a push is verified.
//!
//! This is defence in depth, and the only check where others than Pub/Sub can reach the service. When
//! Cloud Run itself has checked the caller, it can hand the token on with its signature removed. Such
//! a token is never taken as good: pushes are then counted as `signature_removed`, and this check has
//! to be switched off for that service.
//!
//! - [`PushAuthArgs`]: the flags; the check is on when there is an audience
//! - [`PushAuth`]: verifies the header Authorization; a [`PushGuard`]
//! - [`PushAuthError`]: what is refused, and how it is answered
//!
//! `verifier` holds the rules for tokens, `jwks` Google's public keys.

mod args;
mod error;
mod jwks;
#[cfg(test)]
mod tests;
mod verifier;

use std::{fmt, time::SystemTime};

use async_trait::async_trait;
use axum::{
    extract::Request,
    http::{
        HeaderValue, StatusCode,
        header::{AUTHORIZATION, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};

pub use self::{
    args::{DEFAULT_JWKS_URL, PushAuthArgs, PushAuthConfig},
    error::PushAuthError,
    verifier::Claims,
};
use self::{
    jwks::Jwks,
    verifier::{Rules, Token, bearer_token},
};
use super::PushGuard;

/// Verifies the tokens of pushes.
///
/// The metric `push_auth_total{outcome}` counts what is verified: `accepted`, or the word of the
/// refusal ([`PushAuthError::outcome`]).
pub struct PushAuth {
    rules: Rules,
    keys: Jwks,
}

/// The HTTP client for Google's keys cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for Google's keys cannot be made")]
pub struct PushAuthSetupError(#[from] reqwest::Error);

impl PushAuth {
    /// Makes the verifier. Keys are fetched when the first token comes.
    ///
    /// # Errors
    /// [`PushAuthSetupError`].
    pub fn new(config: PushAuthConfig) -> Result<Self, PushAuthSetupError> {
        // A redirect could only lead away from the address that is trusted.
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self::with_client(config, client))
    }

    fn with_client(config: PushAuthConfig, client: reqwest::Client) -> Self {
        let PushAuthConfig { audience, service_account, jwks_url, min_refresh_interval, fetch_timeout } =
            config;
        Self {
            rules: Rules { audience, service_account },
            keys: Jwks::new(client, jwks_url, min_refresh_interval, fetch_timeout),
        }
    }

    /// Verifies the value of the header Authorization.
    ///
    /// The signature is checked where this runs, on an async worker: one RSA verification takes less
    /// than a tenth of a millisecond.
    ///
    /// # Errors
    /// [`PushAuthError`] says why the push is refused.
    pub async fn verify(&self, authorization: Option<&HeaderValue>) -> Result<Claims, PushAuthError> {
        let verified = self.check(authorization).await;
        let outcome = verified.as_ref().map_or_else(PushAuthError::outcome, |_| "accepted");
        metrics::counter!("push_auth_total", "outcome" => outcome).increment(1);
        verified
    }

    async fn check(&self, authorization: Option<&HeaderValue>) -> Result<Claims, PushAuthError> {
        let token = Token::parse(bearer_token(authorization)?)?;
        let key = self.keys.key(&token.key_id).await?;
        let payload = token.verified_payload(&key)?;
        self.rules.check(&payload, SystemTime::now())
    }
}

impl fmt::Debug for PushAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushAuth").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// The handler finds [`Claims`] in the request's extensions. Everything else is answered as
/// [`PushAuthError::into_problem`] says, 401 with `WWW-Authenticate: Bearer`.
#[async_trait]
impl PushGuard for PushAuth {
    async fn admit(&self, mut request: Request) -> Result<Request, Response> {
        let authorization = request.headers().get(AUTHORIZATION).cloned();
        match self.verify(authorization.as_ref()).await {
            Ok(claims) => {
                request.extensions_mut().insert(claims);
                Ok(request)
            }
            Err(error) => {
                let mut response = error.into_problem().into_response();
                if response.status() == StatusCode::UNAUTHORIZED {
                    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                }
                Err(response)
            }
        }
    }
}
