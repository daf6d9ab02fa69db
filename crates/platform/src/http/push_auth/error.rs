//! [`PushAuthError`] is the reason why a push is refused.

use std::time::Duration;

/// Reason why a push is refused.
///
/// The text of the error is for the log. It may contain claims of the token, but never the token itself.
///
/// A refused push is not acknowledged. Pub/Sub delivers the message again according to the retry policy of
/// the subscription.
#[derive(Debug, thiserror::Error)]
pub enum PushAuthError {
    /// The request has no header Authorization, or the header has no token after its scheme.
    #[error("the request has no token")]
    NoToken,
    /// The scheme of the header Authorization is not Bearer.
    #[error("the header Authorization does not use the scheme Bearer")]
    NotBearer,
    /// The header Authorization is longer than the maximum. The field is the length of the header in bytes.
    #[error("the header Authorization is too long: {0} bytes")]
    TooLong(usize),
    /// The token does not consist of three parts in base64url, with JSON in the first two parts. The field
    /// names the defect.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// The header of the token names an algorithm that is not RS256.
    #[error("the token's algorithm is not RS256")]
    WrongAlgorithm,
    /// The token does not name the key that signed it.
    #[error("the token has no key id")]
    NoKeyId,
    /// Google has verified the token already, and has removed its signature.
    #[error(
        "Google removed the token's signature; Cloud Run does so if it verifies callers itself, and then \
         PUSH_AUDIENCE must be unset"
    )]
    SignatureRemoved,
    /// The token is signed with a key that Google does not publish.
    #[error("the token is signed with an unknown key")]
    UnknownKey,
    /// The token was not signed with the key that it names, or was changed afterwards.
    #[error("the signature of the token is wrong")]
    BadSignature,
    /// The claim of this name is missing, or has the wrong type.
    #[error("the claim {0} is missing or malformed")]
    BadClaim(&'static str),
    /// The claim `exp` is in the past.
    #[error("the token has expired")]
    Expired,
    /// The claim of this name, `iat` or `nbf`, is in the future.
    #[error("the claim {0} is in the future")]
    NotYetValid(&'static str),
    /// The token was not issued by Google. The field is the issuer.
    #[error("the token was issued by {0:?}, not by Google")]
    WrongIssuer(String),
    /// The token is for a different service. The field is the audience of the token.
    #[error("the token is for the audience {0}, not for this service")]
    WrongAudience(String),
    /// Google has not verified the e-mail address in the token.
    #[error("the e-mail address of the token is not verified")]
    UnverifiedEmail,
    /// The token belongs to an account that is not the configured one. The field is the e-mail address of the
    /// account.
    #[error("the token belongs to {0:?}, not to the configured account")]
    WrongEmail(String),
    /// No keys are available to verify the token.
    #[error("no keys are available to verify the token")]
    KeysUnavailable {
        /// Time until the keys may be fetched again.
        retry_after: Duration,
    },
}

impl PushAuthError {
    /// Returns the value of `outcome` in the metric `push_auth_total`.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::NotBearer => "not_bearer",
            Self::TooLong(_) => "too_long",
            Self::Malformed(_) => "malformed",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::NoKeyId => "no_key_id",
            Self::SignatureRemoved => "signature_removed",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::BadClaim(_) => "bad_claim",
            Self::Expired => "expired",
            Self::NotYetValid(_) => "not_yet_valid",
            Self::WrongIssuer(_) => "wrong_issuer",
            Self::WrongAudience(_) => "wrong_audience",
            Self::UnverifiedEmail => "unverified_email",
            Self::WrongEmail(_) => "wrong_email",
            Self::KeysUnavailable { .. } => "keys_unavailable",
        }
    }
}
