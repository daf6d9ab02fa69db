//! Converts a [`PushAuthError`] into the response to the refused push.

use axum::http::StatusCode;

use super::PushAuthError;
use crate::http::Problem;

/// The status and the kind depend on the error:
///
/// | status | kind | when |
/// |---|---|---|
/// | 401 | `unauthenticated` | the request has no valid token for this service |
/// | 403 | `forbidden` | the token is valid, but belongs to an account that may not push |
/// | 503 | `keys_unavailable` | no token can be verified now; the response has a Retry-After |
impl From<PushAuthError> for Problem {
    fn from(error: PushAuthError) -> Self {
        use PushAuthError as E;

        const TOKEN_NEEDED: &str = "This address accepts pushes with a token: the header `Authorization: \
            Bearer` with an OpenID Connect token that Google signed. Enable authentication in the push \
            subscription.";
        const NOT_GENUINE: &str = "Google did not sign this token, or the token was changed afterwards.";
        const BAD_CLAIM: &str =
            "A claim of the token is missing or malformed; send the token as Google issued it.";
        const NOT_VALID_NOW: &str = "The token is not valid at this time; send a fresh one.";
        const WRONG_AUDIENCE: &str =
            "The token is for another service; check the audience of the push subscription.";
        const WRONG_ACCOUNT: &str =
            "The token's account may not push here; check the service account of the push subscription.";
        const NO_KEYS: &str = "The token cannot be verified now; try again later.";
        const REMOVED_SIGNATURE: &str = "The signature of the token was removed before it arrived.";

        let detail = match &error {
            E::NoToken | E::NotBearer => TOKEN_NEEDED,
            E::TooLong(_)
            | E::Malformed(_)
            | E::WrongAlgorithm
            | E::NoKeyId
            | E::UnknownKey
            | E::BadSignature
            | E::WrongIssuer(_) => NOT_GENUINE,
            E::SignatureRemoved => REMOVED_SIGNATURE,
            E::BadClaim(_) => BAD_CLAIM,
            E::Expired | E::NotYetValid(_) => NOT_VALID_NOW,
            E::WrongAudience(_) => WRONG_AUDIENCE,
            E::UnverifiedEmail | E::WrongEmail(_) => {
                return Self::new(StatusCode::FORBIDDEN, "forbidden", WRONG_ACCOUNT).with_source(error);
            }
            E::KeysUnavailable { retry_after } => {
                return Self::unavailable("keys_unavailable", NO_KEYS, *retry_after).with_source(error);
            }
        };
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail).with_source(error)
    }
}
