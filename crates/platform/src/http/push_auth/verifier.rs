//! The rules that a token must satisfy.
//!
//! A token cannot choose the algorithm of its verification. The algorithm is always RS256, and a token that
//! names any other algorithm is refused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::HeaderValue;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::PushAuthError;

/// Maximum length of the header Authorization in bytes. A token of Google has about 1,000 bytes.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// Maximum difference between the clock of Google and the clock of this machine.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(60);
/// Accepted values of the claim `iss`. Google uses both.
const ISSUERS: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];
/// Text that replaces a signature which Google has removed.
const REMOVED_SIGNATURE: &str = "SIGNATURE_REMOVED_BY_GOOGLE";
/// Maximum number of characters of a claim that an error quotes.
const MAX_QUOTED_CHARS: usize = 200;

/// The claims of a verified token that describe the sender of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The claim `email`, which is the e-mail address of the service account.
    pub email: String,
}

/// Returns the token in `authorization`, the value of the header Authorization. The case of the scheme does
/// not matter, and one or more spaces may follow the scheme.
pub(super) fn bearer_token(authorization: Option<&HeaderValue>) -> Result<&str, PushAuthError> {
    let value = authorization.ok_or(PushAuthError::NoToken)?;
    if value.len() > MAX_HEADER_BYTES {
        return Err(PushAuthError::TooLong(value.len()));
    }
    let value =
        value.to_str().map_err(|_| PushAuthError::Malformed("the header Authorization is not ASCII"))?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    let token = token.trim_start_matches(' ');
    match (scheme, token) {
        ("", "") => Err(PushAuthError::NoToken),
        _ if !scheme.eq_ignore_ascii_case("bearer") => Err(PushAuthError::NotBearer),
        (_, "") => Err(PushAuthError::NoToken),
        _ => Ok(token),
    }
}

/// The parts of a JSON Web Token that is not yet verified.
#[derive(Debug)]
pub(super) struct UnverifiedToken<'a> {
    /// Id of the key that signed the token, according to the token's header.
    pub(super) key_id: String,
    /// The signed text, which consists of the header, a dot and the payload as received.
    signed_text: &'a str,
    payload: &'a str,
    signature: &'a str,
}

/// The header of a token. `alg` is the algorithm of the signature, and `kid` is the id of the key. `crit`
/// lists the extensions that a verifier must support; this verifier supports none.
#[derive(Deserialize)]
struct JwtHeader {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

impl<'a> UnverifiedToken<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, PushAuthError> {
        let malformed = PushAuthError::Malformed;
        let split = |token: &'a str| {
            let (signed_text, signature) = token.rsplit_once('.')?;
            let (header, payload) = signed_text.split_once('.')?;
            (!payload.contains('.')).then_some((signed_text, header, payload, signature))
        };
        let (signed_text, header, payload, signature) =
            split(token).ok_or(malformed("the number of parts is not three"))?;
        let header = decode_base64url(header).ok_or(malformed("the token header is not base64url"))?;
        let header: JwtHeader =
            serde_json::from_slice(&header).map_err(|_| malformed("the token header is not a JWT header"))?;
        if header.alg != "RS256" {
            return Err(PushAuthError::WrongAlgorithm);
        }
        if header.crit.is_some() {
            return Err(malformed("the token header has critical extensions"));
        }
        if signature == REMOVED_SIGNATURE {
            return Err(PushAuthError::SignatureRemoved);
        }
        let key_id = header.kid.filter(|kid| !kid.is_empty()).ok_or(PushAuthError::NoKeyId)?;
        Ok(Self { key_id, signed_text, payload, signature })
    }

    /// Verifies the signature with `key` and returns the payload.
    pub(super) fn verified_payload(&self, key: &DecodingKey) -> Result<Vec<u8>, PushAuthError> {
        match crypto::verify(self.signature, self.signed_text.as_bytes(), key, Algorithm::RS256) {
            Ok(true) => {
                decode_base64url(self.payload).ok_or(PushAuthError::Malformed("the payload is not base64url"))
            }
            Ok(false) => Err(PushAuthError::BadSignature),
            // The key is an RSA key, so only the encoding of the signature can cause this error.
            Err(_) => Err(PushAuthError::Malformed("the signature is not base64url")),
        }
    }
}

fn decode_base64url(part: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(part).ok()
}

/// The claims before the check. Each claim may be missing or have any type.
#[derive(Deserialize)]
struct RawClaims {
    exp: Option<Value>,
    iat: Option<Value>,
    nbf: Option<Value>,
    iss: Option<Value>,
    aud: Option<Value>,
    email: Option<Value>,
    email_verified: Option<Value>,
}

/// Values that the claims of a valid token must have.
#[derive(Debug)]
pub(super) struct TokenRules {
    pub(super) audience: String,
    pub(super) service_account: Option<String>,
}

impl TokenRules {
    /// Checks the claims in the payload of a token whose signature is verified.
    pub(super) fn check_claims(&self, payload: &[u8], now: SystemTime) -> Result<Claims, PushAuthError> {
        let claims: RawClaims = serde_json::from_slice(payload)
            .map_err(|_| PushAuthError::Malformed("the payload is not a set of claims"))?;

        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let expires_at = parse_time(claims.exp, "exp")?;
        let issued_at = parse_time(claims.iat, "iat")?;
        let not_before = claims.nbf.map(|nbf| parse_time(Some(nbf), "nbf")).transpose()?;
        if now >= expires_at.saturating_add(MAX_CLOCK_SKEW) {
            return Err(PushAuthError::Expired);
        }
        let latest_valid_start = now.saturating_add(MAX_CLOCK_SKEW);
        if issued_at > latest_valid_start {
            return Err(PushAuthError::NotYetValid("iat"));
        }
        if not_before.is_some_and(|not_before| not_before > latest_valid_start) {
            return Err(PushAuthError::NotYetValid("nbf"));
        }

        let issuer = parse_text(claims.iss, "iss")?;
        if !ISSUERS.contains(&issuer.as_str()) {
            return Err(PushAuthError::WrongIssuer(truncate(issuer)));
        }
        self.check_audience(&claims.aud.ok_or(PushAuthError::BadClaim("aud"))?)?;

        let email = parse_text(claims.email, "email")?;
        // Google sends a boolean, so the text "true" is not accepted.
        let email_verified = claims.email_verified.ok_or(PushAuthError::BadClaim("email_verified"))?;
        if email_verified != Value::Bool(true) {
            return Err(PushAuthError::UnverifiedEmail);
        }
        if self.service_account.as_ref().is_some_and(|expected| *expected != email) {
            return Err(PushAuthError::WrongEmail(truncate(email)));
        }
        Ok(Claims { email })
    }

    /// Checks that this service is the only audience. If a token had several audiences, each of them could
    /// use the token to push to the others.
    fn check_audience(&self, audience: &Value) -> Result<(), PushAuthError> {
        let only_audience = match audience {
            Value::Array(audiences) if audiences.len() == 1 => audiences.first(),
            _ => Some(audience),
        };
        if only_audience.and_then(Value::as_str) == Some(&self.audience) {
            return Ok(());
        }
        Err(PushAuthError::WrongAudience(truncate(audience.to_string())))
    }
}

/// Parses a claim that is a time in whole seconds since the start of 1970, which is the form that Google
/// uses.
fn parse_time(claim: Option<Value>, name: &'static str) -> Result<Duration, PushAuthError> {
    let seconds = claim.as_ref().and_then(Value::as_u64).ok_or(PushAuthError::BadClaim(name))?;
    Ok(Duration::from_secs(seconds))
}

fn parse_text(claim: Option<Value>, name: &'static str) -> Result<String, PushAuthError> {
    match claim {
        Some(Value::String(text)) => Ok(text),
        _ => Err(PushAuthError::BadClaim(name)),
    }
}

fn truncate(text: String) -> String {
    match text.char_indices().nth(MAX_QUOTED_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
