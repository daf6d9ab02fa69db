//! The settings of a [`Server`](super::Server).

use std::{fmt, net::SocketAddr, num::NonZeroUsize, str::FromStr, time::Duration};

use axum::http::Uri;
use clap::Args;

use super::descriptors;
use crate::config::{Validate, parse_defaults, parse_seconds};

/// Number of connections above the maximum that are accepted if every connection has a request in progress.
/// They serve only health checks, metrics and pushes.
pub(super) const RESERVED_CONNECTIONS: usize = 24;
/// Maximum number of connections that were told to close and are not closed yet.
pub(super) const MAX_CLOSING_CONNECTIONS: usize = 8;

/// Maximum of the default number of connections. A connection uses up to about 70 kB of memory while a
/// request arrives.
const MAX_DEFAULT_CONNECTIONS: usize = 1024;

/// Settings of the HTTP server. Each program flattens these flags into its configuration.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[group(id = "http")]
pub struct HttpServerArgs {
    /// Maximum number of open connections of a service; a further connection replaces the one that has been
    /// idle longest [default: what the limit on open files allows, at most 1024]
    #[arg(long, env, value_name = "COUNT")]
    pub http_max_connections: Option<NonZeroUsize>,
    /// Maximum seconds for the head of a request to arrive, from its first byte. It also limits how long a new
    /// connection may be silent
    #[arg(long, env, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    pub http_head_timeout: Duration,
    /// Seconds without a request after which a connection is closed
    #[arg(long, env, value_name = "SECONDS", default_value = "620", value_parser = parse_seconds)]
    pub http_idle_timeout: Duration,
    /// Maximum seconds that a client may take to receive a response
    #[arg(long, env, value_name = "SECONDS", default_value = "30", value_parser = parse_seconds)]
    pub http_write_timeout: Duration,
    /// Origins of other websites whose pages may send POST requests, separated by commas, as in
    /// https://example.com [default: none]
    #[arg(long, env, value_name = "ORIGINS", value_delimiter = ',')]
    pub http_allowed_origins: Vec<Origin>,
}

impl Default for HttpServerArgs {
    fn default() -> Self {
        parse_defaults()
    }
}

impl Validate for HttpServerArgs {
    fn problems(&self) -> Vec<String> {
        [
            ("--http-head-timeout (HTTP_HEAD_TIMEOUT)", self.http_head_timeout),
            ("--http-idle-timeout (HTTP_IDLE_TIMEOUT)", self.http_idle_timeout),
            ("--http-write-timeout (HTTP_WRITE_TIMEOUT)", self.http_write_timeout),
        ]
        .into_iter()
        .filter(|(_, timeout)| timeout.is_zero())
        .map(|(name, _)| format!("{name}: with 0 every connection would be closed"))
        .collect()
    }
}

impl HttpServerArgs {
    /// Returns the configuration of a server that listens on `address`.
    ///
    /// `port_setting` is the environment variable of the port, which errors name. `service_count` is the
    /// number of servers in this process, because they share the limit on open files. This function raises
    /// that limit as far as the system permits.
    pub fn server_config(
        &self,
        address: SocketAddr,
        port_setting: &'static str,
        service_count: usize,
    ) -> ServerConfig {
        let possible = descriptors::raise_limit()
            .map_or(usize::MAX, |limit| descriptors::max_connections(limit, service_count));
        let requested = self.http_max_connections.map_or(MAX_DEFAULT_CONNECTIONS, NonZeroUsize::get);
        if self.http_max_connections.is_some() && requested > possible {
            tracing::warn!(
                requested,
                possible,
                "HTTP_MAX_CONNECTIONS is more than the limit on open files allows (ulimit -n)"
            );
        }
        ServerConfig {
            address,
            port_setting,
            limits: ConnectionLimits {
                max_connections: requested.min(possible),
                head_timeout: self.http_head_timeout,
                idle_timeout: self.http_idle_timeout,
                write_timeout: self.http_write_timeout,
            },
            allowed_origins: self.http_allowed_origins.clone(),
        }
    }
}

/// Address and limits of a server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Address to listen on.
    pub address: SocketAddr,
    /// Environment variable of the port. An error names it if the port cannot be used.
    pub port_setting: &'static str,
    /// Limits on connections.
    pub limits: ConnectionLimits,
    /// Origins of other websites whose pages may send requests that change something.
    pub allowed_origins: Vec<Origin>,
}

impl From<SocketAddr> for ServerConfig {
    /// Returns the configuration with the default of every setting, for the only server of the process.
    fn from(address: SocketAddr) -> Self {
        HttpServerArgs::default().server_config(address, "PORT", 1)
    }
}

/// Limits on the connections of a server.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Maximum number of open connections.
    pub max_connections: usize,
    /// Maximum time for the head of a request to arrive, from its first byte or from the start of the
    /// connection.
    pub head_timeout: Duration,
    /// Maximum time between the end of a response and the first byte of the next request.
    pub idle_timeout: Duration,
    /// Maximum time for a response to be sent, from the moment that the client stops receiving.
    pub write_timeout: Duration,
}

/// The origin of a web page, such as `https://example.com` or `http://localhost:3000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// Returns true if `header` is this origin. `header` is the value of a header Origin.
    pub(in crate::http) fn is_named_by(&self, header: &str) -> bool {
        self.0.eq_ignore_ascii_case(header)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let uri: Uri = text.parse().map_err(|_| InvalidOrigin)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(InvalidOrigin);
        };
        let origin = format!("{scheme}://{authority}");
        let has_user = authority.as_str().contains('@');
        if has_user || !origin.eq_ignore_ascii_case(text) { Err(InvalidOrigin) } else { Ok(Self(origin)) }
    }
}

/// The error of a text that is not an origin.
#[derive(Debug, thiserror::Error)]
#[error("expected an origin without a path, as in https://example.com or http://localhost:3000")]
pub struct InvalidOrigin;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_settings_are_valid_and_timeouts_of_zero_are_refused() {
        assert_eq!(HttpServerArgs::default().problems(), Vec::<String>::new());
        let settings = HttpServerArgs {
            http_head_timeout: Duration::ZERO,
            http_write_timeout: Duration::ZERO,
            ..HttpServerArgs::default()
        };
        let problems = settings.problems();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("HTTP_HEAD_TIMEOUT"), "{problems:?}");
    }

    #[test]
    fn number_of_connections_is_at_most_what_the_descriptors_allow() {
        let address: SocketAddr = ([127, 0, 0, 1], 0).into();
        let with = |count| {
            let http_max_connections = NonZeroUsize::new(count);
            let settings = HttpServerArgs { http_max_connections, ..HttpServerArgs::default() };
            settings.server_config(address, "PORT", 1).limits.max_connections
        };
        assert_eq!(with(3), 3);
        let possible =
            descriptors::raise_limit().map_or(usize::MAX, |limit| descriptors::max_connections(limit, 1));
        assert_eq!(with(usize::MAX), possible);
        assert!(ServerConfig::from(address).limits.max_connections <= MAX_DEFAULT_CONNECTIONS);
    }

    #[test]
    fn origin_is_a_scheme_and_an_authority() {
        for good in ["https://example.com", "http://localhost:3000", "http://[::1]:80"] {
            let origin: Origin = good.parse().unwrap();
            assert_eq!(origin.to_string(), good);
            assert!(origin.is_named_by(good));
        }
        for bad in
            ["", "example.com", "*", "null", "https://example.com/", "https://example.com/a", "https://u@x"]
        {
            assert!(bad.parse::<Origin>().is_err(), "{bad:?}");
        }
    }
}
