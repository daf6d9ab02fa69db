//! Tests of the check of push tokens, with a key server on this machine.

mod keys;
mod middleware;
mod settings;
mod tokens;

use std::{
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header::CACHE_CONTROL},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, crypto, get_current_timestamp, jwk};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time,
};

use super::*;

const AUDIENCE: &str = "https://classify.example/pubsub";
const ACCOUNT: &str = "push@project.iam.gserviceaccount.com";
/// Timeout for everything a test waits for. Only a failing test reaches it.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);
const MIN_REFRESH_INTERVAL: Duration = PushAuthConfig::MIN_REFRESH_INTERVAL;
/// Maximum time for a fetch of the keys. Only a fetch from a server that does not respond takes so long.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for which the keys of the key server are fresh.
const LIFETIME: Duration = Duration::from_secs(60);

/// The key with the id "a", which the key server publishes in most tests.
static KEY_A: LazyLock<EncodingKey> =
    LazyLock::new(|| private_key(include_str!("../testdata/test-only-key-a.pem")));
/// The key with the id "b", which the key server publishes only in some tests.
static KEY_B: LazyLock<EncodingKey> =
    LazyLock::new(|| private_key(include_str!("../testdata/test-only-key-b.pem")));

/// Decodes the base64 between the BEGIN and END lines of a PEM file.
fn pem_to_der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().skip_while(|line| !line.starts_with("-----BEGIN")).skip(1);
    let text: String = lines.take_while(|line| !line.starts_with("-----END")).collect();
    BASE64_STANDARD.decode(text).unwrap()
}

/// Parses the private key in a PEM file.
fn private_key(pem: &str) -> EncodingKey {
    EncodingKey::from_rsa_der(&pem_to_der(pem))
}

/// Returns the public half of `key` in the form that Google publishes.
fn public_jwk(key_id: &str, key: &EncodingKey) -> Value {
    let mut jwk = serde_json::to_value(jwk::Jwk::from_encoding_key(key, Algorithm::RS256).unwrap()).unwrap();
    jwk["kid"] = key_id.into();
    jwk["use"] = "sig".into();
    jwk
}

/// Returns a JSON Web Key Set with `keys`.
fn key_set(keys: impl IntoIterator<Item = Value>) -> String {
    json!({ "keys": Vec::from_iter(keys) }).to_string()
}

/// Returns the header of a token that names the key `key_id`.
fn token_header(key_id: &str) -> Value {
    json!({ "alg": "RS256", "kid": key_id, "typ": "JWT" })
}

/// Returns valid claims, with the members that tokens of Pub/Sub have.
fn valid_claims() -> Value {
    let now = get_current_timestamp();
    json!({
        "aud": AUDIENCE, "azp": "113774264463038321964", "email": ACCOUNT, "email_verified": true,
        "exp": now + 3600, "iat": now, "iss": "https://accounts.google.com", "sub": "113774264463038321964",
    })
}

/// Removes a member of a JSON object.
fn without(mut object: Value, member: &str) -> Value {
    object.as_object_mut().unwrap().remove(member).expect("the object must have the member");
    object
}

/// Sets a member of a JSON object.
fn with(mut object: Value, member: &str, value: impl Into<Value>) -> Value {
    object[member] = value.into();
    object
}

/// Encodes the header or the claims of a token.
fn encode(part: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(part.to_string())
}

/// Returns a token with this header and these claims, signed with `key`.
fn sign(header: &Value, claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    let signed_text = format!("{}.{}", encode(header), encode(claims));
    let signature = crypto::sign(signed_text.as_bytes(), key, algorithm).unwrap();
    format!("{signed_text}.{signature}")
}

/// Returns a token with these claims that key "a" signed.
fn signed_token(claims: &Value) -> String {
    sign(&token_header("a"), claims, &KEY_A, Algorithm::RS256)
}

/// Returns the header Authorization with `token`.
fn bearer(token: &str) -> HeaderValue {
    HeaderValue::try_from(format!("Bearer {token}")).unwrap()
}

/// Returns the header Authorization with a valid token that key "a" signed.
fn valid_authorization() -> HeaderValue {
    bearer(&signed_token(&valid_claims()))
}

/// Returns the header Authorization with a valid token that key "b" signed.
fn authorization_signed_by_b() -> HeaderValue {
    bearer(&sign(&token_header("b"), &valid_claims(), &KEY_B, Algorithm::RS256))
}

/// Returns the header Authorization with a token that names the key `key_id`, but that key "b" signed.
fn forged_authorization(key_id: &str) -> HeaderValue {
    bearer(&sign(&token_header(key_id), &valid_claims(), &KEY_B, Algorithm::RS256))
}

/// A response of the key server.
#[derive(Clone)]
struct Reply {
    status: StatusCode,
    cache_control: &'static str,
    body: String,
    /// If set, the server sends the response after it acquires a permit of this semaphore.
    gate: Option<Arc<Semaphore>>,
}

impl Reply {
    /// Returns a response with `keys`, which are fresh for [`LIFETIME`].
    fn with_keys(keys: impl IntoIterator<Item = Value>) -> Self {
        Self::with_body(key_set(keys))
    }

    fn with_body(body: impl Into<String>) -> Self {
        Self { status: StatusCode::OK, cache_control: "public, max-age=60", body: body.into(), gate: None }
    }

    fn failing() -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, ..Self::with_keys([public_jwk("a", &KEY_A)]) }
    }

    /// Returns the response and a semaphore. The server does not send the response before the semaphore has a
    /// permit.
    fn gated(mut self) -> (Self, Arc<Semaphore>) {
        let gate = Arc::new(Semaphore::new(0));
        self.gate = Some(Arc::clone(&gate));
        (self, gate)
    }
}

struct KeyServer {
    reply: Mutex<Reply>,
    fetch_count: watch::Sender<usize>,
}

async fn serve_keys(State(server): State<Arc<KeyServer>>) -> Response {
    server.fetch_count.send_modify(|count| *count += 1);
    let Reply { status, cache_control, body, gate } = server.reply.lock().unwrap().clone();
    if let Some(gate) = gate {
        let _permit = gate.acquire().await.unwrap();
    }
    (status, [(CACHE_CONTROL, cache_control)], body).into_response()
}

/// A verifier and the key server from which it fetches the keys.
struct Rig {
    auth: Arc<PushAuth>,
    server: Arc<KeyServer>,
}

impl Rig {
    async fn start(reply: Reply) -> Self {
        let server = Arc::new(KeyServer { reply: Mutex::new(reply), fetch_count: watch::Sender::new(0) });
        let routes = Router::new().route("/certs", get(serve_keys)).with_state(Arc::clone(&server));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let auth = new_verifier(&format!("http://{address}/certs"));
        Self { auth, server }
    }

    /// Starts a key server that publishes key "a", and a verifier that has fetched the key.
    async fn start_warm() -> Self {
        let rig = Self::start(Reply::with_keys([public_jwk("a", &KEY_A)])).await;
        assert_eq!(rig.outcome(&valid_authorization()).await, "accepted");
        rig
    }

    fn set_reply(&self, reply: Reply) {
        *self.server.reply.lock().unwrap() = reply;
    }

    fn fetch_count(&self) -> usize {
        *self.server.fetch_count.borrow()
    }

    /// Waits until `count` fetches have reached the server.
    async fn wait_for_fetches(&self, count: usize) {
        self.server.fetch_count.subscribe().wait_for(|fetches| *fetches == count).await.unwrap();
    }

    async fn outcome(&self, authorization: &HeaderValue) -> &'static str {
        outcome(&self.auth.verify(Some(authorization)).await)
    }
}

fn new_verifier(jwks_url: &str) -> Arc<PushAuth> {
    let config = PushAuthConfig {
        audience: AUDIENCE.to_owned(),
        service_account: Some(ACCOUNT.to_owned()),
        jwks_url: jwks_url.parse().unwrap(),
        min_refresh_interval: MIN_REFRESH_INTERVAL,
        fetch_timeout: FETCH_TIMEOUT,
    };
    // A proxy that the environment sets must not affect the tests.
    Arc::new(PushAuth::with_client(config, Client::builder().no_proxy().build().unwrap()))
}

fn outcome(result: &Result<Claims, PushAuthError>) -> &'static str {
    result.as_ref().map_or_else(PushAuthError::outcome, |_| "accepted")
}

/// Advances the clock of tokio. This does not affect the validity of tokens, which depends on the clock of
/// the system.
async fn advance(duration: Duration) {
    time::pause();
    time::advance(duration).await;
    time::resume();
}
