//! Tests of the flags, and of the responses to refused pushes.

use clap::Parser;

use super::*;
use crate::config::{EXIT_USAGE, Validate, parse_from};

#[derive(Debug, Parser)]
struct Config {
    #[command(flatten)]
    push_auth: PushAuthArgs,
}

impl Validate for Config {
    fn problems(&self) -> Vec<String> {
        self.push_auth.problems()
    }
}

fn parse(flags: &[&str]) -> Result<Option<PushAuthConfig>, String> {
    let args = ["service"].iter().chain(flags).map(Into::into);
    match parse_from::<Config>(args) {
        Ok(config) => Ok(config.push_auth.config()),
        Err((text, status)) => {
            assert_eq!(status, EXIT_USAGE);
            Err(text)
        }
    }
}

#[test]
fn audience_enables_the_check() {
    assert_eq!(parse(&[]), Ok(None));
    assert_eq!(parse(&["--push-audience", " ", "--push-service-account", ""]), Ok(None));
    let config = parse(&["--push-audience", AUDIENCE, "--push-service-account", ACCOUNT]).unwrap().unwrap();
    assert_eq!(config.audience, AUDIENCE);
    assert_eq!(config.service_account.as_deref(), Some(ACCOUNT));
    assert_eq!(config.jwks_url.as_str(), DEFAULT_JWKS_URL);
    assert_eq!(config.min_refresh_interval, Duration::from_secs(30));
    assert_eq!(config.fetch_timeout, Duration::from_secs(5));
    let config = parse(&["--push-audience=x\n", "--push-service-account", ACCOUNT, "--push-jwks-url="]);
    let config = config.unwrap().unwrap();
    assert_eq!((config.audience.as_str(), config.service_account.as_deref()), ("x", Some(ACCOUNT)));
    assert_eq!(config.jwks_url.as_str(), DEFAULT_JWKS_URL);
}

#[test]
fn service_account_without_an_audience_is_refused() {
    for audience in [&[][..], &["--push-audience="]] {
        let text = parse(&[audience, &["--push-service-account", ACCOUNT]].concat()).unwrap_err();
        assert!(text.contains("PUSH_SERVICE_ACCOUNT") && text.contains("PUSH_AUDIENCE"), "{text}");
    }
}

#[test]
fn audience_without_a_service_account_is_refused() {
    for account in [&[][..], &["--push-service-account="], &["--push-service-account", " "]] {
        let text = parse(&[&["--push-audience", AUDIENCE], account].concat()).unwrap_err();
        for part in ["PUSH_AUDIENCE", "PUSH_SERVICE_ACCOUNT", "`any`", "every Google account"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

#[test]
fn any_service_account_must_be_named_explicitly() {
    for any in ["any", "ANY", " any\n"] {
        let config = parse(&["--push-audience", AUDIENCE, "--push-service-account", any]).unwrap().unwrap();
        assert_eq!(config.service_account, None, "{any:?}");
    }
    for typo in ["all", "*", "anyone", "image-push"] {
        let text = parse(&["--push-audience", AUDIENCE, "--push-service-account", typo]).unwrap_err();
        assert!(text.contains("PUSH_SERVICE_ACCOUNT") && text.contains("`any`"), "{typo}: {text}");
    }
}

#[test]
fn configuration_without_a_service_account_accepts_no_account() {
    let args = Config::try_parse_from(["service", "--push-audience", AUDIENCE]).unwrap().push_auth;
    let account = args.config().unwrap().service_account;
    assert_eq!(account.as_deref(), Some(""), "an unvalidated configuration must not accept every account");
}

#[test]
fn jwks_url_must_be_https_or_local() {
    for good in ["https://keys.example/certs", "http://127.0.0.1:7/", "http://localhost/", "http://[::1]:7/"]
    {
        assert!(
            parse(&["--push-audience=x", "--push-service-account=any", "--push-jwks-url", good]).is_ok(),
            "{good}"
        );
    }
    for bad in ["http://keys.example/", "http://localhost.evil.example/", "file:///etc/keys", "keys", "://"] {
        let text = parse(&["--push-audience=x", "--push-jwks-url", bad]).unwrap_err();
        assert!(text.contains("--push-jwks-url / PUSH_JWKS_URL"), "{text}");
    }
}

#[test]
fn verifier_is_created_without_a_fetch() {
    let config = parse(&["--push-audience=x", "--push-service-account=any"]).unwrap().unwrap();
    let auth = PushAuth::new(config).unwrap();
    assert!(format!("{auth:?}").contains("audience: \"x\""));
}

#[test]
fn every_error_has_its_outcome_and_response() {
    use PushAuthError as E;
    let any_text = String::new;
    let cases = [
        (E::NoToken, "no_token", 401, "unauthenticated"),
        (E::NotBearer, "not_bearer", 401, "unauthenticated"),
        (E::TooLong(7), "too_long", 401, "unauthenticated"),
        (E::Malformed("x"), "malformed", 401, "unauthenticated"),
        (E::WrongAlgorithm, "wrong_algorithm", 401, "unauthenticated"),
        (E::NoKeyId, "no_key_id", 401, "unauthenticated"),
        (E::SignatureRemoved, "signature_removed", 401, "unauthenticated"),
        (E::UnknownKey, "unknown_key", 401, "unauthenticated"),
        (E::BadSignature, "bad_signature", 401, "unauthenticated"),
        (E::BadClaim("x"), "bad_claim", 401, "unauthenticated"),
        (E::Expired, "expired", 401, "unauthenticated"),
        (E::NotYetValid("x"), "not_yet_valid", 401, "unauthenticated"),
        (E::WrongIssuer(any_text()), "wrong_issuer", 401, "unauthenticated"),
        (E::WrongAudience(any_text()), "wrong_audience", 401, "unauthenticated"),
        (E::UnverifiedEmail, "unverified_email", 403, "forbidden"),
        (E::WrongEmail(any_text()), "wrong_email", 403, "forbidden"),
        (
            E::KeysUnavailable { retry_after: MIN_REFRESH_INTERVAL },
            "keys_unavailable",
            503,
            "keys_unavailable",
        ),
    ];
    for (error, outcome, status, kind) in cases {
        assert_eq!(error.outcome(), outcome);
        let problem = Problem::from(error);
        assert_eq!((problem.status.as_u16(), problem.kind), (status, kind), "{outcome}");
        assert_eq!(problem.retry_after, (status == 503).then_some(MIN_REFRESH_INTERVAL), "{outcome}");
        assert!(!problem.detail.is_empty() && problem.source.is_some(), "{outcome}");
    }
}
