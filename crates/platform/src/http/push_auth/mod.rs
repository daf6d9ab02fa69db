//! This module verifies the OpenID Connect token that Pub/Sub sends with a push.
//!
//! On a service that only Pub/Sub can call, this check is a second line of defence. On a public service it is
//! the only check. If Cloud Run itself verifies the caller, Cloud Run may remove the signature of the token
//! before it forwards the request. The check must be disabled on such a service. Otherwise it would refuse
//! the pushes ([`PushAuthError::SignatureRemoved`]).
//!
//! - [`PushAuthArgs`] has the flags. The flag for the audience enables the check.
//! - [`PushAuth`] is the [`PushGuard`] that verifies the header Authorization.
//! - [`PushAuthError`] is the reason for a refusal. `problem` turns it into a response.
//! - `verifier` has the rules for tokens.
//! - `jwks` caches the public keys of Google.

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
    verifier::{TokenRules, UnverifiedToken, bearer_token},
};
use super::{Problem, PushGuard};

/// A verifier for the tokens of pushes.
///
/// The metric `push_auth_total{outcome}` counts the verifications by their outcome. The outcome is `accepted`
/// or the reason for the refusal ([`PushAuthError::outcome`]).
pub struct PushAuth {
    rules: TokenRules,
    keys: JwksCache,
}

/// The error of creating the HTTP client that fetches the keys of Google.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for Google's keys cannot be created")]
pub struct PushAuthSetupError(#[from] reqwest::Error);

impl PushAuth {
    /// Creates the verifier. The verifier fetches the keys when the first token arrives.
    ///
    /// # Errors
    /// Returns [`PushAuthSetupError`] if the HTTP client cannot be created.
    pub fn new(config: PushAuthConfig) -> Result<Self, PushAuthSetupError> {
        // The client follows no redirect, because a redirect could lead away from the trusted address.
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

    /// Verifies `authorization`, the value of the header Authorization.
    ///
    /// This method verifies the signature on the calling async worker, because an RSA verification takes less
    /// than a tenth of a millisecond.
    ///
    /// # Errors
    /// Returns a [`PushAuthError`] if the push must be refused.
    pub async fn verify(&self, authorization: Option<&HeaderValue>) -> Result<Claims, PushAuthError> {
        let result = self.verify_without_metrics(authorization).await;
        let outcome = result.as_ref().map_or_else(PushAuthError::outcome, |_| "accepted");
        metrics::counter!("push_auth_total", "outcome" => outcome).increment(1);
        result
    }

    async fn verify_without_metrics(
        &self,
        authorization: Option<&HeaderValue>,
    ) -> Result<Claims, PushAuthError> {
        let token = UnverifiedToken::parse(bearer_token(authorization)?)?;
        let key = self.keys.find_key(&token.key_id).await?;
        let payload = token.verified_payload(&key)?;
        self.rules.check_claims(&payload, SystemTime::now())
    }
}

impl fmt::Debug for PushAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushAuth").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// An accepted request has the [`Claims`] of its token in its extensions. The response to a refused request
/// is the [`Problem`] for the [`PushAuthError`]. A response with status 401 also has the header
/// `WWW-Authenticate: Bearer`.
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
