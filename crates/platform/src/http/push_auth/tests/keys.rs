//! Tests of the cache of keys.

use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_callers_at_a_cold_start_cause_one_fetch() {
    const CALLER_COUNT: usize = 10_000;
    let (reply, gate) = Reply::with_keys([public_jwk("a", &KEY_A)]).gated();
    let rig = Rig::start(reply).await;
    let authorizations: Vec<_> = (0..16).map(|_| valid_authorization()).collect();
    let (started, mut starts) = mpsc::channel(CALLER_COUNT);
    let mut verifications = JoinSet::new();
    for number in 0..CALLER_COUNT {
        let (auth, started) = (Arc::clone(&rig.auth), started.clone());
        let authorization = authorizations[number % authorizations.len()].clone();
        verifications.spawn(async move {
            started.send(()).await.unwrap();
            auth.verify(Some(&authorization)).await
        });
    }
    for _ in 0..CALLER_COUNT {
        starts.recv().await.unwrap();
    }
    gate.add_permits(1);
    let results = verifications.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), CALLER_COUNT);
    assert_eq!(rig.fetch_count(), 1);
}

#[tokio::test]
async fn invented_key_ids_cause_at_most_one_fetch_per_refresh_interval() {
    let rig = Rig::start_warm().await;
    let mut invented_count = 0;
    for expected_fetch_count in [1, 2, 3] {
        for _ in 0..1000 {
            invented_count += 1;
            // The signature does not matter, because the key is looked up before the signature is verified.
            let token = format!("{}.e30.AAAA", encode(&token_header(&format!("invented-{invented_count}"))));
            assert_eq!(rig.outcome(&bearer(&token)).await, "unknown_key");
        }
        assert_eq!(rig.fetch_count(), expected_fetch_count);
        advance(MIN_REFRESH_INTERVAL).await;
    }
    assert_eq!(rig.outcome(&valid_authorization()).await, "accepted");
}

#[tokio::test]
async fn concurrent_invented_key_ids_cause_one_fetch() {
    let rig = Rig::start_warm().await;
    advance(MIN_REFRESH_INTERVAL).await;
    let mut verifications = JoinSet::new();
    for number in 0..1000 {
        let auth = Arc::clone(&rig.auth);
        let token = format!("{}.e30.AAAA", encode(&token_header(&format!("invented-{number}"))));
        verifications.spawn(async move { outcome(&auth.verify(Some(&bearer(&token))).await) });
    }
    assert!(verifications.join_all().await.iter().all(|outcome| *outcome == "unknown_key"));
    assert_eq!(rig.fetch_count(), 2);
}

#[tokio::test]
async fn new_key_is_accepted_after_one_fetch() {
    let rig = Rig::start_warm().await;
    rig.set_reply(Reply::with_keys([public_jwk("a", &KEY_A), public_jwk("b", &KEY_B)]));
    assert_eq!(
        rig.outcome(&authorization_signed_by_b()).await,
        "unknown_key",
        "the refresh interval is not over yet"
    );
    advance(MIN_REFRESH_INTERVAL).await;
    assert_eq!(rig.outcome(&authorization_signed_by_b()).await, "accepted");
    assert_eq!(rig.outcome(&valid_authorization()).await, "accepted");
    assert_eq!(rig.fetch_count(), 2);
}

#[tokio::test]
async fn withdrawn_key_is_accepted_until_the_set_is_stale() {
    let rig = Rig::start_warm().await;
    rig.set_reply(Reply::with_keys([public_jwk("b", &KEY_B)]));
    advance(LIFETIME / 2).await;
    assert_eq!(rig.outcome(&valid_authorization()).await, "accepted");
    assert_eq!(rig.fetch_count(), 1, "the set is fresh for a minute");
    advance(LIFETIME / 2).await;
    assert_eq!(rig.outcome(&valid_authorization()).await, "unknown_key");
    assert_eq!(rig.outcome(&authorization_signed_by_b()).await, "accepted");
    assert_eq!(rig.fetch_count(), 2);
}

#[tokio::test]
async fn refreshed_set_can_change_the_key_of_an_id() {
    let rig = Rig::start_warm().await;
    rig.set_reply(Reply::with_keys([public_jwk("a", &KEY_B)]));
    advance(LIFETIME).await;
    assert_eq!(rig.outcome(&valid_authorization()).await, "bad_signature");
    assert_eq!(rig.outcome(&forged_authorization("a")).await, "accepted");
}

#[tokio::test]
async fn failed_fetch_is_retried_after_the_refresh_interval() {
    let invalid_bodies = [
        "",
        "<html>",
        "null",
        "[]",
        "{}",
        "{\"keys\":7}",
        "{\"keys\":[]}",
        "{\"keys\":[{}]}",
        "{\"keys\":[{\"kty\":\"RSA\",\"kid\":\"a\",\"n\":\"?\",\"e\":\"AQAB\"}]}",
    ];
    let too_large = format!("{}{}", " ".repeat(1 << 20), key_set([public_jwk("a", &KEY_A)]));
    let replies = invalid_bodies
        .into_iter()
        .map(Reply::with_body)
        .chain([Reply::with_body(too_large), Reply::failing()]);
    for reply in replies {
        let rig = Rig::start(reply).await;
        for _ in 0..3 {
            let error = rig.auth.verify(Some(&valid_authorization())).await.unwrap_err();
            let PushAuthError::KeysUnavailable { retry_after } = error else { panic!("{error}") };
            assert!(
                retry_after <= MIN_REFRESH_INTERVAL && retry_after > MIN_REFRESH_INTERVAL / 2,
                "{retry_after:?}"
            );
        }
        assert_eq!(rig.fetch_count(), 1);
        rig.set_reply(Reply::with_keys([public_jwk("a", &KEY_A)]));
        advance(MIN_REFRESH_INTERVAL).await;
        assert_eq!(rig.outcome(&valid_authorization()).await, "accepted");
        assert_eq!(rig.fetch_count(), 2);
    }
}

#[tokio::test]
async fn keys_are_unavailable_if_the_key_server_is_unreachable() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let auth = new_verifier(&format!("http://{address}/certs"));
    assert_eq!(outcome(&auth.verify(Some(&valid_authorization())).await), "keys_unavailable");
}

#[tokio::test]
async fn stale_keys_are_accepted_for_a_day_while_fetches_fail() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    for reply in [Reply::failing(), Reply::with_body("<html>"), Reply::with_keys([])] {
        let rig = Rig::start_warm().await;
        rig.set_reply(reply);
        advance(LIFETIME).await;
        for _ in 0..10 {
            assert_eq!(rig.outcome(&valid_authorization()).await, "accepted");
        }
        assert_eq!(rig.fetch_count(), 2, "the refresh interval is not over yet");
        assert_eq!(rig.outcome(&forged_authorization("c")).await, "unknown_key");
        advance(DAY - MIN_REFRESH_INTERVAL).await;
        assert_eq!(rig.outcome(&valid_authorization()).await, "accepted");
        assert_eq!(rig.fetch_count(), 3);
        advance(MIN_REFRESH_INTERVAL).await;
        assert_eq!(rig.outcome(&valid_authorization()).await, "keys_unavailable");
        rig.set_reply(Reply::with_keys([public_jwk("a", &KEY_A)]));
        advance(MIN_REFRESH_INTERVAL).await;
        assert_eq!(rig.outcome(&valid_authorization()).await, "accepted");
    }
}

#[tokio::test]
async fn keys_are_unavailable_if_the_key_server_hangs_at_a_cold_start() {
    let (reply, _gate) = Reply::with_keys([public_jwk("a", &KEY_A)]).gated();
    let rig = Rig::start(reply).await;
    let mut waiting = JoinSet::new();
    for _ in 0..3 {
        let auth = Arc::clone(&rig.auth);
        waiting.spawn(async move { outcome(&auth.verify(Some(&valid_authorization())).await) });
    }
    rig.wait_for_fetches(1).await;
    advance(FETCH_TIMEOUT / 2).await;
    assert!(waiting.try_join_next().is_none());
    advance(FETCH_TIMEOUT / 2).await;
    let outcomes = timeout(TEST_TIMEOUT, waiting.join_all()).await.unwrap();
    assert_eq!(outcomes, ["keys_unavailable"; 3]);
    assert_eq!(rig.fetch_count(), 1);
}

#[tokio::test]
async fn known_keys_are_accepted_while_the_key_server_hangs() {
    let rig = Rig::start_warm().await;
    let (reply, gate) = Reply::with_keys([public_jwk("a", &KEY_A), public_jwk("b", &KEY_B)]).gated();
    rig.set_reply(reply);
    advance(MIN_REFRESH_INTERVAL).await;
    let auth = Arc::clone(&rig.auth);
    let waiting_caller =
        tokio::spawn(async move { outcome(&auth.verify(Some(&authorization_signed_by_b())).await) });
    rig.wait_for_fetches(2).await;
    for _ in 0..10 {
        assert_eq!(rig.outcome(&valid_authorization()).await, "accepted");
    }
    assert!(!waiting_caller.is_finished());
    gate.add_permits(1);
    assert_eq!(timeout(TEST_TIMEOUT, waiting_caller).await.unwrap().unwrap(), "accepted");
}

#[tokio::test]
async fn fetch_continues_if_its_caller_is_cancelled() {
    let (reply, gate) = Reply::with_keys([public_jwk("a", &KEY_A)]).gated();
    let rig = Rig::start(reply).await;
    let auth = Arc::clone(&rig.auth);
    let cancelled_caller =
        tokio::spawn(async move { outcome(&auth.verify(Some(&valid_authorization())).await) });
    rig.wait_for_fetches(1).await;
    cancelled_caller.abort();
    assert!(cancelled_caller.await.unwrap_err().is_cancelled());
    let auth = Arc::clone(&rig.auth);
    let next_caller = tokio::spawn(async move { outcome(&auth.verify(Some(&valid_authorization())).await) });
    gate.add_permits(1);
    assert_eq!(timeout(TEST_TIMEOUT, next_caller).await.unwrap().unwrap(), "accepted");
    assert_eq!(rig.fetch_count(), 1);
}

#[tokio::test]
async fn redirect_of_the_key_server_is_not_followed() {
    let rig =
        Rig::start(Reply { status: StatusCode::FOUND, ..Reply::with_keys([public_jwk("a", &KEY_A)]) }).await;
    assert_eq!(rig.outcome(&valid_authorization()).await, "keys_unavailable");
}

#[tokio::test]
async fn keys_that_cannot_verify_rs256_are_ignored() {
    let elliptic = json!({
        "kty": "EC", "kid": "ec", "use": "sig", "alg": "ES256", "crv": "P-256",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    });
    let rsa_key_with =
        |key_id: &str, member: &str, value: &str| with(public_jwk(key_id, &KEY_A), member, value);
    let rig = Rig::start(Reply::with_keys([
        elliptic,
        json!("not a key"),
        rsa_key_with("encrypts", "use", "enc"),
        rsa_key_with("rs512", "alg", "RS512"),
        rsa_key_with("oct", "kty", "oct"),
        without(public_jwk("no-use", &KEY_A), "use"),
        without(public_jwk("no-algorithm", &KEY_A), "alg"),
        public_jwk("a", &KEY_A),
    ]))
    .await;
    let authorization_with_key_id =
        |key_id: &str| bearer(&sign(&token_header(key_id), &valid_claims(), &KEY_A, Algorithm::RS256));
    for key_id in ["a", "no-use", "no-algorithm"] {
        assert_eq!(rig.outcome(&authorization_with_key_id(key_id)).await, "accepted", "{key_id}");
    }
    for key_id in ["ec", "encrypts", "rs512", "oct"] {
        assert_eq!(rig.outcome(&authorization_with_key_id(key_id)).await, "unknown_key", "{key_id}");
    }
}
