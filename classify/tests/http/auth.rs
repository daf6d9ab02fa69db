//! The check of push tokens, as the service is wired. Which tokens are good is tested where the check is.

use std::time::Duration;

use platform::http::push_auth::{PushAuth, PushAuthConfig};
use serde_json::json;

use crate::rig::{Rig, answer, png};

const OBJECT: &str = "x/image.png";

/// A service that takes no push without a token, and cannot get the keys to verify one.
async fn guarded() -> Rig {
    let config = PushAuthConfig {
        audience: "https://classify.example".to_owned(),
        service_account: None,
        // Nothing listens on port 9 of this machine.
        jwks_url: "http://127.0.0.1:9/certs".parse().unwrap(),
        min_refresh_interval: PushAuthConfig::MIN_REFRESH_INTERVAL,
        fetch_timeout: Duration::from_secs(5),
    };
    Rig::guarded(PushAuth::new(config).unwrap()).await
}

#[tokio::test]
async fn a_push_without_a_good_token_is_refused_before_anything_is_done() {
    let rig = guarded().await;
    rig.store(OBJECT, png()).await;
    let (status, problem) = answer(rig.push_event(OBJECT).send().await).await;
    assert_eq!((status, &problem["kind"]), (401, &json!("unauthenticated")), "{problem}");
    let forged = rig.push_event(OBJECT).bearer_auth("not.a.token");
    assert_eq!(answer(forged.send().await).await.0, 401);
    // Well-formed, and no key to check it with: it may be good, so it is to come again.
    let unknown = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEiLCJ0eXAiOiJKV1QifQ.e30.c2lnbmF0dXJl";
    let (status, problem) = answer(rig.push_event(OBJECT).bearer_auth(unknown).send().await).await;
    assert_eq!((status, &problem["kind"]), (503, &json!("keys_unavailable")), "{problem}");
    assert_eq!(rig.classified(), 0);
    assert_eq!(rig.stored(&format!("{OBJECT}.prediction.json")).await, None);
}

#[tokio::test]
async fn everything_but_pushes_needs_no_token() {
    let rig = guarded().await;
    assert_eq!(answer(rig.image(png()).send().await).await.0, 200);
    for path in ["/", "/live", "/ready", "/metrics"] {
        assert_eq!(rig.get(path).send().await.unwrap().status(), 200, "{path}");
    }
}
