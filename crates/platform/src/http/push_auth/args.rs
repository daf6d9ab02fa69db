//! The flags for the check of push tokens, and the configuration that they produce.

use std::time::Duration;

use reqwest::Url;

use crate::config::Validate;

/// Address of the public keys that verify Google's OpenID Connect tokens.
pub const DEFAULT_JWKS_URL: &str = "https://www.googleapis.com/oauth2/v3/certs";

/// Settings for the check of push tokens. A service flattens these flags into its configuration.
///
/// An empty value means the same as an absent value.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[group(id = "push_auth")]
pub struct PushAuthArgs {
    /// Audience that a push token must name; enables the check of push tokens
    #[arg(long, env = "PUSH_AUDIENCE", value_name = "AUDIENCE")]
    pub push_audience: Option<String>,
    /// E-mail address of the service account that a push token must belong to, or `any` for every Google
    /// account; required with --push-audience
    #[arg(long, env = "PUSH_SERVICE_ACCOUNT", value_name = "EMAIL")]
    pub push_service_account: Option<String>,
    /// URL of the public keys that push tokens are verified with
    #[arg(
        long,
        env = "PUSH_JWKS_URL",
        value_name = "URL",
        default_value = DEFAULT_JWKS_URL,
        value_parser = parse_jwks_url
    )]
    pub push_jwks_url: Url,
}

impl PushAuthArgs {
    /// Returns the configuration of the check, or `None` if the check is disabled.
    pub fn config(&self) -> Option<PushAuthConfig> {
        let audience = non_empty(self.push_audience.as_deref())?;
        let service_account = match non_empty(self.push_service_account.as_deref()) {
            Some(account) if is_any(account) => None,
            // `problems` refuses a missing account. An empty address would match no token.
            account => Some(account.unwrap_or_default().to_owned()),
        };
        Some(PushAuthConfig {
            audience: audience.to_owned(),
            service_account,
            jwks_url: self.push_jwks_url.clone(),
            min_refresh_interval: PushAuthConfig::MIN_REFRESH_INTERVAL,
            fetch_timeout: PushAuthConfig::FETCH_TIMEOUT,
        })
    }
}

impl Validate for PushAuthArgs {
    fn problems(&self) -> Vec<String> {
        let audience = non_empty(self.push_audience.as_deref());
        let account = non_empty(self.push_service_account.as_deref());
        let problem = match (audience, account) {
            (None, Some(_)) => {
                "--push-service-account (PUSH_SERVICE_ACCOUNT) needs --push-audience (PUSH_AUDIENCE): \
                 without an audience, no token is checked"
            }
            (Some(_), None) => {
                "--push-audience (PUSH_AUDIENCE) needs --push-service-account (PUSH_SERVICE_ACCOUNT): the \
                 e-mail address of the account that pushes, or `any`, which lets every Google account push \
                 that has a token for the audience"
            }
            (Some(_), Some(account)) if !is_any(account) && !account.contains('@') => {
                "--push-service-account (PUSH_SERVICE_ACCOUNT) is neither an e-mail address nor `any`"
            }
            _ => return Vec::new(),
        };
        vec![problem.to_owned()]
    }
}

/// Returns true if this value of the setting for the account accepts the tokens of every account.
fn is_any(account: &str) -> bool {
    account.eq_ignore_ascii_case("any")
}

/// Returns `value` without surrounding whitespace, or `None` if the result is empty.
fn non_empty(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|value| !value.is_empty())
}

/// Parses the address of the keys. The scheme must be https, or http if the host is this machine, so that
/// nobody can change the keys in transit.
///
/// An empty text means the default address.
fn parse_jwks_url(text: &str) -> Result<Url, String> {
    let text = non_empty(Some(text)).unwrap_or(DEFAULT_JWKS_URL);
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let is_local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_local => Ok(url),
        _ => {
            Err("expected an https address, because whoever can change the keys can forge tokens".to_owned())
        }
    }
}

/// Configuration of a [`super::PushAuth`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushAuthConfig {
    /// The claim `aud` that a token must have.
    pub audience: String,
    /// The claim `email` that a token must have. `None` accepts every account.
    pub service_account: Option<String>,
    /// Address of the JSON Web Key Set.
    pub jwks_url: Url,
    /// Minimum time from the end of a fetch of the keys to the next fetch.
    pub min_refresh_interval: Duration,
    /// Maximum time for a fetch of the keys.
    pub fetch_timeout: Duration,
}

impl PushAuthConfig {
    /// Default of [`Self::min_refresh_interval`]. The time is short, because a key that Google has just
    /// published may be refused for so long.
    pub const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(30);
    /// Default of [`Self::fetch_timeout`]. It is half of the shortest ack deadline of Pub/Sub, which is 10
    /// seconds, so that a push that waits for the keys is answered in time.
    pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
}
