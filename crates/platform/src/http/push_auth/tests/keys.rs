//! How keys are fetched and kept.

use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_start_with_ten_thousand_good_tokens_is_one_fetch() {
    const TOKENS: usize = 10_000;
    let (reply, gate) = Reply::keys([public("a", &KEY_A)]).gated();
    let rig = Rig::start(reply).await;
    let tokens: Vec<_> = (0..16).map(|_| good()).collect();
    let (started, mut starts) = mpsc::channel(TOKENS);
    let mut verifying = JoinSet::new();
    for number in 0..TOKENS {
        let (auth, started) = (Arc::clone(&rig.auth), started.clone());
        let token = tokens[number % tokens.len()].clone();
        verifying.spawn(async move {
            started.send(()).await.unwrap();
            auth.verify(Some(&token)).await
        });
    }
    for _ in 0..TOKENS {
        starts.recv().await.unwrap();
    }
    gate.add_permits(1);
    let verified = verifying.join_all().await;
    assert_eq!(verified.iter().filter(|verified| verified.is_ok()).count(), TOKENS);
    assert_eq!(rig.fetches(), 1);
}

#[tokio::test]
async fn made_up_keys_make_no_more_than_one_fetch_in_the_pause() {
    let rig = Rig::warm().await;
    let mut made_up = 0;
    for expected in [1, 2, 3] {
        for _ in 0..1000 {
            made_up += 1;
            // Looked up before any signature: nothing has to be signed.
            let token = format!("{}.e30.AAAA", encode(&header(&format!("made-up-{made_up}"))));
            assert_eq!(rig.outcome(&bearer(&token)).await, "unknown_key");
        }
        assert_eq!(rig.fetches(), expected);
        later(PAUSE).await;
    }
    assert_eq!(rig.outcome(&good()).await, "accepted");
}

#[tokio::test]
async fn made_up_keys_at_once_make_one_fetch() {
    let rig = Rig::warm().await;
    later(PAUSE).await;
    let mut verifying = JoinSet::new();
    for number in 0..1000 {
        let auth = Arc::clone(&rig.auth);
        let token = bearer(&format!("{}.e30.AAAA", encode(&header(&format!("made-up-{number}")))));
        verifying.spawn(async move { outcome(&auth.verify(Some(&token)).await) });
    }
    assert!(verifying.join_all().await.iter().all(|outcome| *outcome == "unknown_key"));
    assert_eq!(rig.fetches(), 2);
}

#[tokio::test]
async fn a_new_key_is_found_after_one_fetch() {
    let rig = Rig::warm().await;
    rig.answer(Reply::keys([public("a", &KEY_A), public("b", &KEY_B)]));
    assert_eq!(rig.outcome(&good_b()).await, "unknown_key", "it is too early to ask again");
    later(PAUSE).await;
    assert_eq!(rig.outcome(&good_b()).await, "accepted");
    assert_eq!(rig.outcome(&good()).await, "accepted");
    assert_eq!(rig.fetches(), 2);
}

#[tokio::test]
async fn a_key_that_is_gone_is_not_used_any_more() {
    let rig = Rig::warm().await;
    rig.answer(Reply::keys([public("b", &KEY_B)]));
    later(LIFETIME / 2).await;
    assert_eq!(rig.outcome(&good()).await, "accepted");
    assert_eq!(rig.fetches(), 1, "the answer said that it holds for a minute");
    later(LIFETIME / 2).await;
    assert_eq!(rig.outcome(&good()).await, "unknown_key");
    assert_eq!(rig.outcome(&good_b()).await, "accepted");
    assert_eq!(rig.fetches(), 2);
}

#[tokio::test]
async fn one_key_id_may_get_another_key() {
    let rig = Rig::warm().await;
    rig.answer(Reply::keys([public("a", &KEY_B)]));
    later(LIFETIME).await;
    assert_eq!(rig.outcome(&good()).await, "bad_signature");
    assert_eq!(rig.outcome(&forged("a")).await, "accepted");
}

#[tokio::test]
async fn without_keys_everything_waits_and_then_recovers() {
    let wrong_content = [
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
    let too_large = format!("{}{}", " ".repeat(1 << 20), jwks([public("a", &KEY_A)]));
    let replies =
        wrong_content.into_iter().map(Reply::body).chain([Reply::body(too_large), Reply::failing()]);
    for reply in replies {
        let rig = Rig::start(reply).await;
        for _ in 0..3 {
            let error = rig.auth.verify(Some(&good())).await.unwrap_err();
            let PushAuthError::KeysUnavailable { retry_after } = error else { panic!("{error}") };
            assert!(retry_after <= PAUSE && retry_after > PAUSE - PATIENCE / 4, "{retry_after:?}");
        }
        assert_eq!(rig.fetches(), 1);
        rig.answer(Reply::keys([public("a", &KEY_A)]));
        later(PAUSE).await;
        assert_eq!(rig.outcome(&good()).await, "accepted");
        assert_eq!(rig.fetches(), 2);
    }
}

#[tokio::test]
async fn a_server_that_nobody_listens_for() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let auth = verifier(&format!("http://{address}/certs"));
    assert_eq!(outcome(&auth.verify(Some(&good())).await), "keys_unavailable");
}

#[tokio::test]
async fn old_keys_stay_in_use_for_a_day_when_no_new_ones_come() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    for reply in [Reply::failing(), Reply::body("<html>"), Reply::keys([])] {
        let rig = Rig::warm().await;
        rig.answer(reply);
        later(LIFETIME).await;
        for _ in 0..10 {
            assert_eq!(rig.outcome(&good()).await, "accepted");
        }
        assert_eq!(rig.fetches(), 2, "one attempt, then a pause");
        assert_eq!(rig.outcome(&forged("c")).await, "unknown_key");
        later(DAY - PAUSE).await;
        assert_eq!(rig.outcome(&good()).await, "accepted");
        assert_eq!(rig.fetches(), 3);
        later(PAUSE).await;
        assert_eq!(rig.outcome(&good()).await, "keys_unavailable");
        rig.answer(Reply::keys([public("a", &KEY_A)]));
        later(PAUSE).await;
        assert_eq!(rig.outcome(&good()).await, "accepted");
    }
}

#[tokio::test]
async fn a_server_that_hangs_at_the_start() {
    let (reply, _gate) = Reply::keys([public("a", &KEY_A)]).gated();
    let rig = Rig::start(reply).await;
    let mut waiting = JoinSet::new();
    for _ in 0..3 {
        let auth = Arc::clone(&rig.auth);
        waiting.spawn(async move { outcome(&auth.verify(Some(&good())).await) });
    }
    rig.fetch_arrived(1).await;
    later(PATIENCE / 2).await;
    assert!(waiting.try_join_next().is_none());
    later(PATIENCE / 2).await;
    let outcomes = timeout(PATIENCE, waiting.join_all()).await.unwrap();
    assert_eq!(outcomes, ["keys_unavailable"; 3]);
    assert_eq!(rig.fetches(), 1);
}

#[tokio::test]
async fn a_server_that_hangs_does_not_stop_keys_that_are_known() {
    let rig = Rig::warm().await;
    let (reply, gate) = Reply::keys([public("a", &KEY_A), public("b", &KEY_B)]).gated();
    rig.answer(reply);
    later(PAUSE).await;
    let auth = Arc::clone(&rig.auth);
    let waiting = tokio::spawn(async move { outcome(&auth.verify(Some(&good_b())).await) });
    rig.fetch_arrived(2).await;
    for _ in 0..10 {
        assert_eq!(rig.outcome(&good()).await, "accepted");
    }
    assert!(!waiting.is_finished());
    gate.add_permits(1);
    assert_eq!(timeout(PATIENCE, waiting).await.unwrap().unwrap(), "accepted");
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_end_the_fetch() {
    let (reply, gate) = Reply::keys([public("a", &KEY_A)]).gated();
    let rig = Rig::start(reply).await;
    let auth = Arc::clone(&rig.auth);
    let leaving = tokio::spawn(async move { outcome(&auth.verify(Some(&good())).await) });
    rig.fetch_arrived(1).await;
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    let auth = Arc::clone(&rig.auth);
    let staying = tokio::spawn(async move { outcome(&auth.verify(Some(&good())).await) });
    gate.add_permits(1);
    assert_eq!(timeout(PATIENCE, staying).await.unwrap().unwrap(), "accepted");
    assert_eq!(rig.fetches(), 1);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let rig = Rig::start(Reply { status: StatusCode::FOUND, ..Reply::keys([public("a", &KEY_A)]) }).await;
    assert_eq!(rig.outcome(&good()).await, "keys_unavailable");
}

#[tokio::test]
async fn only_rsa_keys_for_signatures_count() {
    let elliptic = json!({
        "kty": "EC", "kid": "ec", "use": "sig", "alg": "ES256", "crv": "P-256",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    });
    let rsa = |key_id: &str, member: &str, value: &str| with(public(key_id, &KEY_A), member, value);
    let rig = Rig::start(Reply::keys([
        elliptic,
        json!("what is this"),
        rsa("encrypts", "use", "enc"),
        rsa("rs512", "alg", "RS512"),
        rsa("oct", "kty", "oct"),
        without(public("nothing-more", &KEY_A), "use"),
        without(public("no-algorithm", &KEY_A), "alg"),
        public("a", &KEY_A),
    ]))
    .await;
    let by = |key_id: &str| bearer(&sign(&header(key_id), &claims(), &KEY_A, Algorithm::RS256));
    for key_id in ["a", "nothing-more", "no-algorithm"] {
        assert_eq!(rig.outcome(&by(key_id)).await, "accepted", "{key_id}");
    }
    for key_id in ["ec", "encrypts", "rs512", "oct"] {
        assert_eq!(rig.outcome(&by(key_id)).await, "unknown_key", "{key_id}");
    }
}
