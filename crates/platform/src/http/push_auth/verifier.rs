//! What makes a token good.
//!
//! Nothing in a token decides how it is verified: the algorithm is RS256 whatever the header says.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::HeaderValue;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;
use serde_json::Value;

use super::PushAuthError;

/// Longest header in bytes; a token of Google has about a thousand.
const MAX_HEADER_BYTES: usize = 16 << 10;
/// So far clocks may be apart.
const LEEWAY: Duration = Duration::from_secs(60);
/// Google writes either.
const ISSUERS: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];
/// What Google leaves of a signature that it has removed.
const REMOVED_SIGNATURE: &str = "SIGNATURE_REMOVED_BY_GOOGLE";
/// So much of a claim is repeated in the log at most, in characters.
const MAX_LOGGED: usize = 200;

/// Who pushed: what a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The claim `email`: the service account's address.
    pub email: String,
    /// The claim `sub`: the account's unique id.
    pub subject: Option<String>,
}

/// The token in the header Authorization. The scheme is Bearer in any case, and one space or more.
pub(super) fn bearer_token(authorization: Option<&HeaderValue>) -> Result<&str, PushAuthError> {
    let value = authorization.ok_or(PushAuthError::NoToken)?;
    if value.len() > MAX_HEADER_BYTES {
        return Err(PushAuthError::TooLong(value.len()));
    }
    let value = value.to_str().map_err(|_| PushAuthError::Malformed("the header is not ASCII"))?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    let token = token.trim_start_matches(' ');
    match (scheme, token) {
        ("", "") => Err(PushAuthError::NoToken),
        _ if !scheme.eq_ignore_ascii_case("bearer") => Err(PushAuthError::NotBearer),
        (_, "") => Err(PushAuthError::NoToken),
        _ => Ok(token),
    }
}

/// A JSON Web Token in its compact form, not yet verified.
#[derive(Debug)]
pub(super) struct Token<'a> {
    /// The key that it claims to be signed with.
    pub(super) key_id: String,
    /// What is signed: header and payload as they came.
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
}

/// The header of a token. `crit` lists what a verifier must understand; this one understands nothing.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl<'a> Token<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, PushAuthError> {
        let malformed = PushAuthError::Malformed;
        let split = |token: &'a str| {
            let (message, signature) = token.rsplit_once('.')?;
            let (header, payload) = message.split_once('.')?;
            (!payload.contains('.')).then_some((message, header, payload, signature))
        };
        let (message, header, payload, signature) =
            split(token).ok_or(malformed("it has not three parts"))?;
        let header = decode(header).ok_or(malformed("its header is not base64url"))?;
        let header: Header =
            serde_json::from_slice(&header).map_err(|_| malformed("its header is not that of a JWT"))?;
        if header.alg != "RS256" {
            return Err(PushAuthError::WrongAlgorithm);
        }
        if header.crit.is_some() {
            return Err(malformed("its header has critical extensions"));
        }
        if signature == REMOVED_SIGNATURE {
            return Err(PushAuthError::SignatureRemoved);
        }
        let key_id = header.kid.filter(|kid| !kid.is_empty()).ok_or(PushAuthError::NoKeyId)?;
        Ok(Self { key_id, message, payload, signature })
    }

    /// The payload, where the signature is that of `key`.
    pub(super) fn verified_payload(&self, key: &DecodingKey) -> Result<Vec<u8>, PushAuthError> {
        match crypto::verify(self.signature, self.message.as_bytes(), key, Algorithm::RS256) {
            Ok(true) => decode(self.payload).ok_or(PushAuthError::Malformed("its payload is not base64url")),
            Ok(false) => Err(PushAuthError::BadSignature),
            // RS256 and an RSA key belong together, so what is wrong is the signature's base64url.
            Err(_) => Err(PushAuthError::Malformed("its signature is not base64url")),
        }
    }
}

fn decode(part: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(part).ok()
}

/// The claims as they come; each may be missing or of any type.
#[derive(Deserialize)]
struct RawClaims {
    exp: Option<Value>,
    iat: Option<Value>,
    nbf: Option<Value>,
    iss: Option<Value>,
    aud: Option<Value>,
    email: Option<Value>,
    email_verified: Option<Value>,
    sub: Option<Value>,
}

/// What the claims must say.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) audience: String,
    pub(super) service_account: Option<String>,
}

impl Rules {
    /// Checks the payload of a token whose signature is good.
    pub(super) fn check(&self, payload: &[u8], now: SystemTime) -> Result<Claims, PushAuthError> {
        let claims: RawClaims = serde_json::from_slice(payload)
            .map_err(|_| PushAuthError::Malformed("its payload is not a set of claims"))?;

        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let expires = time(claims.exp, "exp")?;
        let issued = time(claims.iat, "iat")?;
        let not_before = claims.nbf.map(|nbf| time(Some(nbf), "nbf")).transpose()?;
        if now >= expires.saturating_add(LEEWAY) {
            return Err(PushAuthError::Expired);
        }
        let latest_start = now.saturating_add(LEEWAY);
        if issued > latest_start {
            return Err(PushAuthError::NotYetValid("iat"));
        }
        if not_before.is_some_and(|not_before| not_before > latest_start) {
            return Err(PushAuthError::NotYetValid("nbf"));
        }

        let issuer = text(claims.iss, "iss")?;
        if !ISSUERS.contains(&issuer.as_str()) {
            return Err(PushAuthError::WrongIssuer(shorten(issuer)));
        }
        self.check_audience(&claims.aud.ok_or(PushAuthError::BadClaim("aud"))?)?;

        let email = text(claims.email, "email")?;
        // Google sends a boolean; the text "true" is no promise of anybody.
        let verified = claims.email_verified.ok_or(PushAuthError::BadClaim("email_verified"))?;
        if verified != Value::Bool(true) {
            return Err(PushAuthError::UnverifiedEmail);
        }
        if self.service_account.as_ref().is_some_and(|expected| *expected != email) {
            return Err(PushAuthError::WrongEmail(shorten(email)));
        }
        Ok(Claims { email, subject: text(claims.sub, "sub").ok() })
    }

    /// The audience must be this service and nobody else: a token that is good at several places can
    /// be used by each of them at the others.
    fn check_audience(&self, audience: &Value) -> Result<(), PushAuthError> {
        let only = match audience {
            Value::Array(several) if several.len() == 1 => several.first(),
            _ => Some(audience),
        };
        if only.and_then(Value::as_str) == Some(&self.audience) {
            return Ok(());
        }
        Err(PushAuthError::WrongAudience(shorten(audience.to_string())))
    }
}

/// A time in whole seconds since the start of 1970, as Google writes it.
fn time(claim: Option<Value>, name: &'static str) -> Result<Duration, PushAuthError> {
    let seconds = claim.as_ref().and_then(Value::as_u64).ok_or(PushAuthError::BadClaim(name))?;
    Ok(Duration::from_secs(seconds))
}

fn text(claim: Option<Value>, name: &'static str) -> Result<String, PushAuthError> {
    match claim {
        Some(Value::String(text)) => Ok(text),
        _ => Err(PushAuthError::BadClaim(name)),
    }
}

fn shorten(text: String) -> String {
    match text.char_indices().nth(MAX_LOGGED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
