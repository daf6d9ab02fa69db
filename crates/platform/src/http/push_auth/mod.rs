//! Verifies the OpenID Connect token that Pub/Sub sends with a push.
//!
//! On a service that only Pub/Sub can call, this is a second line of defence. On a public service it is the
//! only check. If Cloud Run itself verifies the caller, it may remove the signature of the token before it
//! forwards the request. Such pushes are refused and counted as `signature_removed`, and this check must be
//! disabled for that service.
//!
//! - [`PushAuthArgs`]: the flags; an audience enables the check
//! - [`PushAuth`]: verifies the header Authorization; a [`PushGuard`]
//! - [`PushAuthError`]: the reason for a refusal; `problem` turns it into a response
//! - `verifier`: the rules for tokens
//! - `jwks`: Google's public keys

mod args;
mod error;
mod jwks;
mod problem;
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
    jwks::JwksCache,
    verifier::{Token, TokenRules, bearer_token},
};
use super::{Problem, PushGuard};

/// Verifies the tokens of pushes.
///
/// The metric `push_auth_total{outcome}` counts the results: `accepted`, or the reason of the refusal
/// ([`PushAuthError::outcome`]).
pub struct PushAuth {
    rules: TokenRules,
    keys: JwksCache,
}

/// The HTTP client for Google's keys cannot be created.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for Google's keys cannot be created")]
pub struct PushAuthSetupError(#[from] reqwest::Error);

impl PushAuth {
    /// Creates the verifier. The keys are fetched when the first token arrives.
    ///
    /// # Errors
    /// [`PushAuthSetupError`].
    pub fn new(config: PushAuthConfig) -> Result<Self, PushAuthSetupError> {
        // No redirects: they would lead away from the trusted address.
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self::with_client(config, client))
    }

    fn with_client(config: PushAuthConfig, client: reqwest::Client) -> Self {
        let PushAuthConfig { audience, service_account, jwks_url, min_refresh_interval, fetch_timeout } =
            config;
        Self {
            rules: TokenRules { audience, service_account },
            keys: JwksCache::new(client, jwks_url, min_refresh_interval, fetch_timeout),
        }
    }

    /// Verifies the value of the header Authorization.
    ///
    /// The signature is verified on the calling async worker, because one RSA verification takes less than
    /// a tenth of a millisecond.
    ///
    /// # Errors
    /// [`PushAuthError`] is the reason why the push is refused.
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

/// Puts the [`Claims`] of a verified token into the extensions of the request. A refusal is the [`Problem`]
/// of its [`PushAuthError`]; a 401 also has the header `WWW-Authenticate: Bearer`.
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
                let mut response = Problem::from(error).into_response();
                if response.status() == StatusCode::UNAUTHORIZED {
                    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                }
                Err(response)
            }
        }
    }
}
