//! What is refused, and how it is answered.

use std::time::Duration;

use axum::http::StatusCode;

use crate::http::Problem;

/// Why a push is refused. The text is for the log: it may tell what the token says, never the token.
///
/// None of these is an acknowledgement: Pub/Sub sends the message again, as its subscription says, while
/// somebody puts the configuration right.
#[derive(Debug, thiserror::Error)]
pub enum PushAuthError {
    /// No header Authorization, or nothing after its scheme.
    #[error("the request has no token")]
    NoToken,
    /// A scheme other than Bearer.
    #[error("the header Authorization has another scheme than Bearer")]
    NotBearer,
    /// Longer than any token of Google.
    #[error("the header Authorization has {0} bytes")]
    TooLong(usize),
    /// Not three parts of base64url with JSON in the first two.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// Signed otherwise than with RS256, or not at all.
    #[error("the token's algorithm is not RS256")]
    WrongAlgorithm,
    /// The token does not name the key that it is signed with.
    #[error("the token has no key id")]
    NoKeyId,
    /// Google has checked the token already, and removed its signature.
    #[error(
        "Google removed the token's signature, as Cloud Run does when it has checked the caller itself: \
         unset PUSH_AUDIENCE there"
    )]
    SignatureRemoved,
    /// Signed with a key that Google does not publish.
    #[error("the token is signed with an unknown key")]
    UnknownKey,
    /// The signature is not that of the key over this token.
    #[error("the signature is wrong")]
    BadSignature,
    /// A claim is not there, or of the wrong type.
    #[error("the claim {0} is missing or malformed")]
    BadClaim(&'static str),
    /// `exp` is past.
    #[error("the token has expired")]
    Expired,
    /// `iat` or `nbf` is to come.
    #[error("the claim {0} is in the future")]
    NotYetValid(&'static str),
    /// Not issued by Google.
    #[error("the token is issued by {0:?}")]
    WrongIssuer(String),
    /// Meant for another service.
    #[error("the token is for the audience {0}")]
    WrongAudience(String),
    /// Google does not vouch for the e-mail address.
    #[error("the e-mail address of the token is not verified")]
    UnverifiedEmail,
    /// Not the service account of the subscription.
    #[error("the token belongs to {0:?}")]
    WrongEmail(String),
    /// No keys to verify anything with.
    #[error("there are no keys to verify the token with")]
    KeysUnavailable {
        /// Time until the keys may be fetched again.
        retry_after: Duration,
    },
}

impl PushAuthError {
    /// The value of `outcome` in the metric `push_auth_total`.
    pub fn outcome(&self) -> &'static str {
        self.row().0
    }

    /// The answer. The words after the status are the values of [`PushAuthError::outcome`].
    ///
    /// | status | kind | when |
    /// |---|---|---|
    /// | 401 | `unauthenticated` | no good token: `no_token`, `not_bearer`, `too_long`, `malformed`, `wrong_algorithm`, `no_key_id`, `signature_removed`, `unknown_key`, `bad_signature`, `bad_claim`, `expired`, `not_yet_valid`, `wrong_issuer`, `wrong_audience` (it is for another service) |
    /// | 403 | `forbidden` | a good token of somebody else: `unverified_email`, `wrong_email` |
    /// | 503 | `keys_unavailable` | nothing can be verified now; with Retry-After |
    pub fn into_problem(self) -> Problem {
        let (_, status, detail) = self.row();
        let problem = match self {
            Self::KeysUnavailable { retry_after } => {
                Problem::unavailable("keys_unavailable", detail, retry_after)
            }
            _ if status == StatusCode::FORBIDDEN => Problem::new(status, "forbidden", detail),
            _ => Problem::new(status, "unauthenticated", detail),
        };
        problem.with_source(self)
    }

    /// The table: outcome, status, what the caller is told.
    fn row(&self) -> (&'static str, StatusCode, &'static str) {
        const NEEDED: &str = "This address takes pushes with a token: the header `Authorization: Bearer` with an \
            OpenID Connect token that Google signed. Switch authentication on in the push subscription.";
        const NOT_GENUINE: &str = "The token is not one that Google signed, or it was changed on its way.";
        const INCOMPLETE: &str = "The token does not say all that is needed; send the one that Google made.";
        const TIMES: &str = "The token is not valid at this time; send a fresh one.";
        const AUDIENCE: &str =
            "The token is for another service; check the audience of the push subscription.";
        const ACCOUNT: &str =
            "The token's account may not push here; check the service account of the push subscription.";
        const KEYS: &str = "The token cannot be verified now; try again later.";
        const REMOVED: &str = "The token has no signature any more. It was removed on its way.";

        let unauthenticated = StatusCode::UNAUTHORIZED;
        match self {
            Self::NoToken => ("no_token", unauthenticated, NEEDED),
            Self::NotBearer => ("not_bearer", unauthenticated, NEEDED),
            Self::TooLong(_) => ("too_long", unauthenticated, NOT_GENUINE),
            Self::Malformed(_) => ("malformed", unauthenticated, NOT_GENUINE),
            Self::WrongAlgorithm => ("wrong_algorithm", unauthenticated, NOT_GENUINE),
            Self::NoKeyId => ("no_key_id", unauthenticated, NOT_GENUINE),
            Self::SignatureRemoved => ("signature_removed", unauthenticated, REMOVED),
            Self::UnknownKey => ("unknown_key", unauthenticated, NOT_GENUINE),
            Self::BadSignature => ("bad_signature", unauthenticated, NOT_GENUINE),
            Self::BadClaim(_) => ("bad_claim", unauthenticated, INCOMPLETE),
            Self::Expired => ("expired", unauthenticated, TIMES),
            Self::NotYetValid(_) => ("not_yet_valid", unauthenticated, TIMES),
            Self::WrongIssuer(_) => ("wrong_issuer", unauthenticated, NOT_GENUINE),
            Self::WrongAudience(_) => ("wrong_audience", unauthenticated, AUDIENCE),
            Self::UnverifiedEmail => ("unverified_email", StatusCode::FORBIDDEN, ACCOUNT),
            Self::WrongEmail(_) => ("wrong_email", StatusCode::FORBIDDEN, ACCOUNT),
            Self::KeysUnavailable { .. } => ("keys_unavailable", StatusCode::SERVICE_UNAVAILABLE, KEYS),
        }
    }
}
