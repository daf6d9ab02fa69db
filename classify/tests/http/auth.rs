//! Tests that a push is authenticated before it is handled. The tests of `platform` cover the validation of
//! tokens.

use std::time::Duration;

use platform::http::push_auth::{PushAuth, PushAuthConfig};
use serde_json::json;

use crate::rig::{Rig, encode_png, read_json};

/// Name of the announced object.
const OBJECT: &str = "x/image.png";

/// Starts a service that requires a token on every push, but cannot fetch the keys to verify a token.
async fn start_rig_with_push_auth() -> Rig {
    let config = PushAuthConfig {
        audience: "https://classify.example".to_owned(),
        service_account: None,
        // Nothing listens on port 9, so fetching the keys fails.
        jwks_url: "http://127.0.0.1:9/certs".parse().unwrap(),
        min_refresh_interval: PushAuthConfig::MIN_REFRESH_INTERVAL,
        fetch_timeout: Duration::from_secs(5),
    };
    Rig::with_push_auth(PushAuth::new(config).unwrap()).await
}

#[tokio::test]
async fn push_without_a_valid_token_is_refused_before_it_is_handled() {
    let rig = start_rig_with_push_auth().await;
    rig.store(OBJECT, encode_png()).await;
    let (status, problem) = read_json(rig.push_event(OBJECT).send().await).await;
    assert_eq!((status, &problem["kind"]), (401, &json!("unauthenticated")), "{problem}");
    let forged = rig.push_event(OBJECT).bearer_auth("not.a.token");
    assert_eq!(read_json(forged.send().await).await.0, 401);
    // This token is well-formed, but the service has no key to verify it. The token may be valid, so the push
    // is refused with 503 and delivered again.
    let unverifiable = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEiLCJ0eXAiOiJKV1QifQ.e30.c2lnbmF0dXJl";
    let (status, problem) = read_json(rig.push_event(OBJECT).bearer_auth(unverifiable).send().await).await;
    assert_eq!((status, &problem["kind"]), (503, &json!("keys_unavailable")), "{problem}");
    assert_eq!(rig.classified_count(), 0);
    assert_eq!(rig.stored(&format!("{OBJECT}.prediction.json")).await, None);
}

#[tokio::test]
async fn routes_other_than_pubsub_need_no_token() {
    let rig = start_rig_with_push_auth().await;
    assert_eq!(read_json(rig.post_image(encode_png()).send().await).await.0, 200);
    for path in ["/", "/live", "/ready", "/metrics"] {
        assert_eq!(rig.get(path).send().await.unwrap().status(), 200, "{path}");
    }
}
