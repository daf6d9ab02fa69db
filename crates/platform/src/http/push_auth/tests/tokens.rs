//! Tests of accepted and of refused tokens.

use proptest::prelude::*;

use super::*;
use crate::telemetry::error_chain;

/// Checks that the verifier refuses the header with this outcome and status, and that neither the response
/// nor the log contains the token.
async fn assert_refused(rig: &Rig, authorization: &HeaderValue, outcome: &str, status: u16) {
    let error = rig.auth.verify(Some(authorization)).await.expect_err("the push must be refused");
    assert_eq!(error.outcome(), outcome, "{error}: {authorization:?}");
    let problem = Problem::from(error);
    assert_eq!(problem.status.as_u16(), status);
    let text = String::from_utf8_lossy(authorization.as_bytes());
    let source = error_chain(problem.source.expect("the problem must have a source").as_ref());
    for part in text.split([' ', '.']).filter(|part| part.len() > 20) {
        assert!(!source.contains(part) && !problem.detail.contains(part), "{source} {}", problem.detail);
    }
}

#[tokio::test]
async fn claims_of_a_valid_token_are_returned() {
    let rig = Rig::start(Reply::with_keys([public_jwk("a", &KEY_A)])).await;
    let claims = rig.auth.verify(Some(&valid_authorization())).await.unwrap();
    assert_eq!(claims, Claims { email: ACCOUNT.to_owned() });
}

#[tokio::test]
async fn variants_of_a_valid_token_are_accepted() {
    let rig = Rig::start_warm().await;
    let token = signed_token(&valid_claims());
    for scheme in ["Bearer ", "bearer ", "BEARER ", "Bearer    "] {
        let header = HeaderValue::try_from(format!("{scheme}{token}")).unwrap();
        assert_eq!(rig.outcome(&header).await, "accepted", "{scheme:?}");
    }
    let now = get_current_timestamp();
    for claims in [
        with(valid_claims(), "iss", "accounts.google.com"),
        with(valid_claims(), "aud", json!([AUDIENCE])),
        with(valid_claims(), "nbf", now),
        without(without(valid_claims(), "sub"), "azp"),
    ] {
        assert_eq!(rig.outcome(&bearer(&signed_token(&claims))).await, "accepted", "{claims}");
    }
}

#[tokio::test]
async fn every_account_is_accepted_if_any_account_may_push() {
    let rig = Rig::start_warm().await;
    let rules = TokenRules { audience: AUDIENCE.to_owned(), service_account: None };
    let other = with(valid_claims(), "email", "other@project.iam.gserviceaccount.com");
    assert!(rules.check_claims(other.to_string().as_bytes(), SystemTime::now()).is_ok());
    assert_refused(&rig, &bearer(&signed_token(&other)), "wrong_email", 403).await;
}

#[tokio::test]
async fn wrong_claim_is_refused() {
    let rig = Rig::start_warm().await;
    let now = get_current_timestamp();
    let cases = [
        ("exp", json!(now - 61), "expired", 401),
        ("exp", json!(0), "expired", 401),
        ("exp", json!((now + 60).to_string()), "bad_claim", 401),
        ("exp", json!(-1), "bad_claim", 401),
        ("iat", json!(now + 3600), "not_yet_valid", 401),
        ("nbf", json!(now + 3600), "not_yet_valid", 401),
        ("nbf", json!("soon"), "bad_claim", 401),
        ("iss", json!("https://accounts.google.com.evil.example"), "wrong_issuer", 401),
        ("iss", json!(["https://accounts.google.com"]), "bad_claim", 401),
        ("aud", json!("https://other.example"), "wrong_audience", 401),
        ("aud", json!(format!("{AUDIENCE}/")), "wrong_audience", 401),
        ("aud", json!(""), "wrong_audience", 401),
        ("aud", json!([AUDIENCE, "https://other.example"]), "wrong_audience", 401),
        ("aud", json!([]), "wrong_audience", 401),
        ("aud", json!([[AUDIENCE]]), "wrong_audience", 401),
        ("email", json!("other@project.iam.gserviceaccount.com"), "wrong_email", 403),
        ("email", json!(""), "wrong_email", 403),
        ("email", json!(7), "bad_claim", 401),
        ("email_verified", json!(false), "unverified_email", 403),
        ("email_verified", json!("true"), "unverified_email", 403),
        ("email_verified", json!(1), "unverified_email", 403),
    ];
    for (claim, value, outcome, status) in cases {
        let token = signed_token(&with(valid_claims(), claim, value));
        assert_refused(&rig, &bearer(&token), outcome, status).await;
    }
}

#[tokio::test]
async fn missing_claim_or_malformed_payload_is_refused() {
    let rig = Rig::start_warm().await;
    for claim in ["exp", "iat", "iss", "aud", "email", "email_verified"] {
        for claims in [without(valid_claims(), claim), with(valid_claims(), claim, Value::Null)] {
            assert_refused(&rig, &bearer(&signed_token(&claims)), "bad_claim", 401).await;
        }
    }
    let duplicate_claim = valid_claims().to_string().replacen('{', "{\"aud\":\"x\",", 1);
    for payload in ["null", "[]", "7", "{", "", &duplicate_claim] {
        let signed_text =
            format!("{}.{}", encode(&token_header("a")), BASE64_URL_SAFE_NO_PAD.encode(payload));
        let signature = crypto::sign(signed_text.as_bytes(), &KEY_A, Algorithm::RS256).unwrap();
        assert_refused(&rig, &bearer(&format!("{signed_text}.{signature}")), "malformed", 401).await;
    }
}

#[test]
fn clocks_may_differ_by_a_minute() {
    let rules = TokenRules { audience: AUDIENCE.to_owned(), service_account: None };
    let now = 2_000_000_000;
    let outcome_at = |claims: Value, seconds: u64| {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        outcome(&rules.check_claims(claims.to_string().as_bytes(), time))
    };
    let claims = with(with(valid_claims(), "exp", now + 3600), "iat", now);
    assert_eq!(outcome_at(claims.clone(), now), "accepted");
    assert_eq!(outcome_at(claims.clone(), now + 3659), "accepted");
    assert_eq!(outcome_at(claims.clone(), now + 3660), "expired");
    assert_eq!(outcome_at(claims.clone(), now - 60), "accepted");
    assert_eq!(outcome_at(claims.clone(), now - 61), "not_yet_valid");
    let claims = with(claims, "nbf", now + 10);
    assert_eq!(outcome_at(claims.clone(), now - 50), "accepted");
    assert_eq!(outcome_at(claims.clone(), now - 51), "not_yet_valid");
    assert_eq!(outcome_at(with(claims, "exp", u64::MAX), now + 10), "accepted");
}

#[tokio::test]
async fn changed_or_forged_token_is_refused() {
    let rig = Rig::start_warm().await;
    assert_refused(&rig, &forged_authorization("a"), "bad_signature", 401).await;
    let token = signed_token(&valid_claims());
    let (signed_text, signature) = token.rsplit_once('.').unwrap();
    let (header_part, _) = signed_text.split_once('.').unwrap();
    let changed_claims = encode(&with(valid_claims(), "email", "root@project.iam.gserviceaccount.com"));
    assert_refused(
        &rig,
        &bearer(&format!("{header_part}.{changed_claims}.{signature}")),
        "bad_signature",
        401,
    )
    .await;
    assert_refused(&rig, &bearer(&format!("{signed_text}.")), "bad_signature", 401).await;
    assert_refused(&rig, &bearer(&format!("{signed_text}.AAAA")), "bad_signature", 401).await;
    assert_refused(
        &rig,
        &bearer(&format!("{signed_text}.SIGNATURE_REMOVED_BY_GOOGLE")),
        "signature_removed",
        401,
    )
    .await;
    // These RSA signatures use a hash or a padding other than that of RS256.
    for algorithm in [Algorithm::RS512, Algorithm::PS256] {
        let signed = sign(&token_header("a"), &valid_claims(), &KEY_A, algorithm);
        assert_refused(&rig, &bearer(&signed), "bad_signature", 401).await;
    }
}

#[tokio::test]
async fn token_cannot_choose_its_algorithm() {
    let rig = Rig::start_warm().await;
    for algorithm in ["none", "None", "HS256", "ES256", "RS384", "RS512", "PS256", "EdDSA", "rs256", ""] {
        let header = with(token_header("a"), "alg", algorithm);
        let token = sign(&header, &valid_claims(), &KEY_A, Algorithm::RS256);
        assert_refused(&rig, &bearer(&token), "wrong_algorithm", 401).await;
        let unsigned = format!("{}.{}.", encode(&header), encode(&valid_claims()));
        assert_refused(&rig, &bearer(&unsigned), "wrong_algorithm", 401).await;
    }
    // An attacker knows the public key, and could use any encoding of it as the secret of an HMAC.
    let pem = include_str!("../testdata/test-only-key-a.pub.pem");
    let modulus = public_jwk("a", &KEY_A)["n"].as_str().unwrap().to_owned();
    let secrets = [
        pem.as_bytes().to_vec(),
        pem.trim_end().as_bytes().to_vec(),
        pem_to_der(pem),
        BASE64_URL_SAFE_NO_PAD.decode(&modulus).unwrap(),
        modulus.into_bytes(),
        public_jwk("a", &KEY_A).to_string().into_bytes(),
    ];
    for secret in secrets {
        let secret = EncodingKey::from_secret(&secret);
        let hs256_header = with(token_header("a"), "alg", "HS256");
        let names_hs256 = sign(&hs256_header, &valid_claims(), &secret, Algorithm::HS256);
        assert_refused(&rig, &bearer(&names_hs256), "wrong_algorithm", 401).await;
        let names_rs256 = sign(&token_header("a"), &valid_claims(), &secret, Algorithm::HS256);
        assert_refused(&rig, &bearer(&names_rs256), "bad_signature", 401).await;
    }
}

#[tokio::test]
async fn invalid_token_header_is_refused() {
    let rig = Rig::start_warm().await;
    let signed = |header: Value| bearer(&sign(&header, &valid_claims(), &KEY_A, Algorithm::RS256));
    assert_refused(&rig, &signed(without(token_header("a"), "kid")), "no_key_id", 401).await;
    assert_refused(&rig, &signed(with(token_header("a"), "kid", Value::Null)), "no_key_id", 401).await;
    assert_refused(&rig, &signed(token_header("")), "no_key_id", 401).await;
    assert_refused(&rig, &signed(with(token_header("a"), "kid", 7)), "malformed", 401).await;
    assert_refused(&rig, &signed(without(token_header("a"), "alg")), "malformed", 401).await;
    assert_refused(&rig, &signed(with(token_header("a"), "crit", json!(["b64"]))), "malformed", 401).await;
    assert_refused(&rig, &signed(token_header("c")), "unknown_key", 401).await;
    // The verifier does not trust a key that the token itself contains.
    let with_own_key = with(token_header("a"), "jwk", public_jwk("a", &KEY_B));
    assert_refused(
        &rig,
        &bearer(&sign(&with_own_key, &valid_claims(), &KEY_B, Algorithm::RS256)),
        "bad_signature",
        401,
    )
    .await;
}

#[tokio::test]
async fn invalid_authorization_header_is_refused() {
    let rig = Rig::start_warm().await;
    assert_eq!(outcome(&rig.auth.verify(None).await), "no_token");
    let token = signed_token(&valid_claims());
    let long = format!("Bearer {}", "a".repeat(16 * 1024));
    let padded = format!("Bearer {}{token}", " ".repeat(16 * 1024 - 7 - token.len()));
    let cases = [
        (String::new(), "no_token"),
        ("Bearer".to_owned(), "no_token"),
        ("Bearer   ".to_owned(), "no_token"),
        ("Basic dXNlcjpwYXNz".to_owned(), "not_bearer"),
        (token.clone(), "not_bearer"),
        (format!("Token {token}"), "not_bearer"),
        (format!(" Bearer {token}"), "not_bearer"),
        (format!("Bearer\t{token}"), "not_bearer"),
        (long, "too_long"),
        (format!("{padded} "), "too_long"),
        (padded, "accepted"),
        ("Bearer x".to_owned(), "malformed"),
        ("Bearer ..".to_owned(), "malformed"),
        ("Bearer a.b".to_owned(), "malformed"),
        (format!("Bearer {token}.AAAA"), "malformed"),
        (format!("Bearer {token}="), "malformed"),
        (format!("Bearer {token} {token}"), "malformed"),
        (format!("Bearer {token}, Bearer {token}"), "malformed"),
    ];
    for (text, expected) in cases {
        let header = HeaderValue::try_from(&text).unwrap();
        assert_eq!(rig.outcome(&header).await, expected, "{text:?}");
    }
    let header = HeaderValue::from_bytes(b"Bearer \xff\xfe").unwrap();
    assert_refused(&rig, &header, "malformed", 401).await;
    assert_eq!(rig.fetch_count(), 1, "none of these tokens causes a fetch");
}

#[tokio::test]
async fn outcomes_are_counted() {
    let rig = Rig::start_warm().await;
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    {
        let _guard = metrics::set_default_local_recorder(&recorder);
        for authorization in [
            valid_authorization(),
            valid_authorization(),
            forged_authorization("a"),
            forged_authorization("c"),
        ] {
            rig.outcome(&authorization).await;
        }
    }
    let text = handle.render();
    for (outcome, count) in [("accepted", 2), ("bad_signature", 1), ("unknown_key", 1)] {
        let line = format!("push_auth_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(text.contains(&line), "{line}{text}");
    }
}

/// Returns a runtime, and a rig that runs on it and whose verifier has fetched key "a".
fn warm_runtime() -> (tokio::runtime::Runtime, Rig) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rig = runtime.block_on(Rig::start_warm());
    (runtime, rig)
}

#[test]
fn arbitrary_bytes_are_refused_without_a_panic() {
    let (runtime, rig) = warm_runtime();
    proptest!(|(bytes in prop::collection::vec(any::<u8>(), 0..200), shape in 0_u8..4)| {
        let jwt_header = encode(&token_header("a"));
        let header = match shape {
            0 => bytes,
            1 => [b"Bearer ".as_slice(), &bytes].concat(),
            2 => format!("Bearer {}", BASE64_URL_SAFE_NO_PAD.encode(bytes)).into_bytes(),
            _ => format!("Bearer {jwt_header}.{}.AAAA", BASE64_URL_SAFE_NO_PAD.encode(bytes)).into_bytes(),
        };
        if let Ok(header) = HeaderValue::from_bytes(&header) {
            prop_assert!(runtime.block_on(rig.auth.verify(Some(&header))).is_err());
        }
    });
}

#[test]
fn token_with_one_changed_character_is_refused() {
    let (runtime, rig) = warm_runtime();
    let token = signed_token(&valid_claims());
    verify_in(&runtime, &rig, &token).unwrap();
    proptest!(|(position in 0..token.len(), replacement in "[A-Za-z0-9_.=-]")| {
        let mut changed = token.clone();
        changed.replace_range(position..=position, &replacement);
        if changed != token {
            prop_assert!(verify_in(&runtime, &rig, &changed).is_err());
        }
    });
}

fn verify_in(runtime: &tokio::runtime::Runtime, rig: &Rig, token: &str) -> Result<Claims, PushAuthError> {
    runtime.block_on(rig.auth.verify(Some(&bearer(token))))
}
