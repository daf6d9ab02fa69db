//! Settings for calls to Google Cloud. They contain the project, the addresses of emulators and the timeout
//! of a call.

use std::{fmt, str::FromStr, time::Duration};

use clap::Args;
use google_cloud_auth::credentials::{Credentials, anonymous};
use google_cloud_gax::exponential_backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

use crate::config::{Validate, parse_defaults, parse_seconds};

/// Settings for calls to Google Cloud. Each service flattens these flags into its configuration.
///
/// If no emulator is set, calls go to Google's servers, with Application Default Credentials.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct CloudArgs {
    /// Project of topics and subscriptions whose names do not include a project
    #[arg(long, env = "GOOGLE_CLOUD_PROJECT", value_name = "PROJECT")]
    pub google_cloud_project: Option<String>,
    /// Address of a Cloud Storage emulator, as in localhost:4443
    #[arg(long, env = "STORAGE_EMULATOR_HOST", value_name = "ADDRESS")]
    pub storage_emulator_host: Option<EmulatorAddress>,
    /// Address of a Pub/Sub emulator, as in localhost:8085
    #[arg(long, env = "PUBSUB_EMULATOR_HOST", value_name = "ADDRESS")]
    pub pubsub_emulator_host: Option<EmulatorAddress>,
    /// Maximum seconds for a call to Cloud Storage or Pub/Sub, retries included
    #[arg(
        long,
        env = "CLOUD_TIMEOUT",
        value_name = "SECONDS",
        default_value = "10",
        value_parser = parse_seconds
    )]
    pub cloud_timeout: Duration,
}

impl Default for CloudArgs {
    fn default() -> Self {
        parse_defaults()
    }
}

impl Validate for CloudArgs {
    fn problems(&self) -> Vec<String> {
        if self.cloud_timeout.is_zero() {
            vec!["--cloud-timeout (CLOUD_TIMEOUT): with 0, every call would time out".to_owned()]
        } else {
            Vec::new()
        }
    }
}

/// Address of an emulator: scheme, host and port. `localhost:8085` means `http://localhost:8085`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmulatorAddress(String);

impl EmulatorAddress {
    /// Returns the address with its scheme and without a trailing slash, as Google's clients expect it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns credentials for an emulator. They are anonymous, because emulators do not check credentials.
    pub(crate) fn credentials() -> Credentials {
        anonymous::Builder::new().build()
    }
}

impl FromStr for EmulatorAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = match text.split_once("://") {
            Some(("http" | "https", _)) => text.to_owned(),
            Some((scheme, _)) => return Err(format!("{scheme}:// is neither http:// nor https://")),
            None => format!("http://{text}"),
        };
        let url = url.trim_end_matches('/');
        let host = url.split_once("://").map_or("", |(_, host)| host);
        if host.is_empty() || host.contains(['/', '?', '#', '@']) || host.contains(char::is_whitespace) {
            return Err("expected HOST:PORT, as in localhost:8085".to_owned());
        }
        Ok(Self(url.to_owned()))
    }
}

impl fmt::Display for EmulatorAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the backoff between the attempts of a call.
///
/// The pauses are at most 0.1 s, 0.2 s, 0.4 s and so on up to 2 s, and each is shortened by a random amount.
/// The default of Google's clients begins with a pause of up to one second, which is too long for a request
/// that waits for the call.
pub(crate) fn retry_backoff() -> ExponentialBackoff {
    ExponentialBackoffBuilder::new()
        .with_initial_delay(Duration::from_millis(100))
        .with_maximum_delay(Duration::from_secs(2))
        .clamp()
}

/// The error of a call to Google Cloud that took longer than its timeout.
#[derive(Debug, thiserror::Error)]
#[error("no response within {0:?}")]
pub(crate) struct TimedOut(pub(crate) Duration);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_scheme_becomes_http() {
        for (text, address) in [
            ("localhost:8085", "http://localhost:8085"),
            ("http://storage:4443", "http://storage:4443"),
            ("http://storage:4443/", "http://storage:4443"),
            ("https://127.0.0.1", "https://127.0.0.1"),
            ("[::1]:8085", "http://[::1]:8085"),
        ] {
            assert_eq!(text.parse::<EmulatorAddress>().unwrap().as_str(), address);
        }
    }

    #[test]
    fn text_that_is_not_host_and_port_is_refused() {
        for text in ["", "/", "http://", "ftp://x", "a b", "http://host/path", "user@host:1", "host?x"] {
            assert!(text.parse::<EmulatorAddress>().is_err(), "{text:?}");
        }
    }
}
