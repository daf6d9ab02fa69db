//! The flags of the check, and the configuration that they make.

use std::time::Duration;

use reqwest::Url;

use crate::config::Validate;

/// Where Google publishes the keys that it signs OpenID Connect tokens with.
pub const DEFAULT_JWKS_URL: &str = "https://www.googleapis.com/oauth2/v3/certs";

/// The flags of the check of push tokens; a service flattens them into its configuration. An empty
/// value is the same as none.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[group(id = "push_auth")]
pub struct PushAuthArgs {
    /// Audience that the token of a push must name; switches the check of push tokens on
    #[arg(long, env = "PUSH_AUDIENCE", value_name = "AUDIENCE")]
    pub push_audience: Option<String>,
    /// Service account (its e-mail address) that the token of a push must name; else any that Google
    /// signed for the audience
    #[arg(long, env = "PUSH_SERVICE_ACCOUNT", value_name = "EMAIL")]
    pub push_service_account: Option<String>,
    /// Where the public keys for the tokens of pushes are
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
    /// The configuration of the check, or `None` where it is off.
    pub fn config(&self) -> Option<PushAuthConfig> {
        let audience = set(self.push_audience.as_deref())?;
        Some(PushAuthConfig {
            audience: audience.to_owned(),
            service_account: set(self.push_service_account.as_deref()).map(str::to_owned),
            jwks_url: self.push_jwks_url.clone(),
            min_refresh_interval: PushAuthConfig::MIN_REFRESH_INTERVAL,
            fetch_timeout: PushAuthConfig::FETCH_TIMEOUT,
        })
    }
}

impl Validate for PushAuthArgs {
    fn problems(&self) -> Vec<String> {
        let account = set(self.push_service_account.as_deref());
        if account.is_some() && set(self.push_audience.as_deref()).is_none() {
            return vec![
                "--push-service-account (PUSH_SERVICE_ACCOUNT) needs --push-audience (PUSH_AUDIENCE): without \
                 it no token is checked"
                    .to_owned(),
            ];
        }
        Vec::new()
    }
}

/// The value without the space around it; none where nothing is left.
fn set(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|value| !value.is_empty())
}

/// An address whose answer nobody on the way can change: https, or this machine. An empty text means
/// the default.
fn parse_jwks_url(text: &str) -> Result<Url, String> {
    let text = set(Some(text)).unwrap_or(DEFAULT_JWKS_URL);
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme() {
        "https" => Ok(url),
        "http" if local => Ok(url),
        _ => {
            Err("expected an https address, because whoever can change the keys can forge tokens".to_owned())
        }
    }
}

/// What a [`super::PushAuth`] needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushAuthConfig {
    /// The claim `aud` of a good token.
    pub audience: String,
    /// The claim `email` of a good token; `None` accepts whatever Google signed for the audience.
    pub service_account: Option<String>,
    /// Where the JSON Web Key Set is.
    pub jwks_url: Url,
    /// So long no second fetch of the keys follows a first one, whatever tokens come.
    pub min_refresh_interval: Duration,
    /// A fetch of the keys that takes longer has failed.
    pub fetch_timeout: Duration,
}

impl PushAuthConfig {
    /// Pause between two fetches of the keys.
    pub const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(30);
    /// Longest fetch of the keys: half of the shortest time that Pub/Sub waits for an answer.
    pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
}
