//! The settings of the log, and the function that installs it.

use std::{
    io::{self, IsTerminal},
    sync::Mutex,
};

use tracing_subscriber::{EnvFilter, filter::ParseError, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use super::{foreign_output, json::JsonLayer, panic_hook};
use crate::shutdown;

/// Directives that come before those of the filter, which can therefore replace them.
///
/// These modules of GPU libraries log failures that the service handles and reports itself: a graphics API that
/// does not work although another one does, and a batch that does not fit on the GPU.
const QUIET_MODULES: &str = "wgpu_hal::gles=off,cubecl_runtime::logging=off";

/// Format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// `Human` if stderr is a terminal, otherwise `Json`.
    Auto,
    /// Human-readable lines.
    Human,
    /// One JSON object per line, for Cloud Logging.
    Json,
}

/// Settings of the log. Each service flattens these flags into its configuration.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct LogArgs {
    /// Events to log: a level, or levels by target, as in `info,classify=debug`
    #[arg(long, env = "RUST_LOG", default_value = "info", value_parser = parse_filter)]
    pub log: String,
    /// Format of the log
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,
}

/// Returns `text` if it is a valid filter of log events. Returns the default filter, `info`, if `text` is
/// empty, so that an empty `RUST_LOG` has the same effect as an unset one.
fn parse_filter(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Ok("info".to_owned());
    }
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Parses `filter`, and adds [`QUIET_MODULES`] to it.
fn add_quiet_modules(filter: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("{QUIET_MODULES},{filter}"))
}

/// Installs the log of this process. This does nothing if a log is installed already.
pub(super) fn install(filter: &str, format: LogFormat) {
    let (env_filter, filter_error) = match add_quiet_modules(filter) {
        Ok(env_filter) => (env_filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let is_terminal = io::stderr().is_terminal();
    let is_human = match format {
        LogFormat::Auto => is_terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let env_filter = if is_human { env_filter } else { allow_fatal_errors(env_filter) };
    let registry = tracing_subscriber::registry().with(env_filter);
    let result = if is_human {
        registry.with(fmt::layer().with_writer(io::stderr).with_ansi(is_terminal)).try_init()
    } else if let Ok(stderr) = foreign_output::duplicate_stderr() {
        registry
            .with(JsonLayer::new(Mutex::new(stderr)))
            .try_init()
            .inspect(|()| foreign_output::allow_redirection())
    } else {
        registry.with(JsonLayer::new(io::stderr)).try_init()
    };
    if result.is_err() {
        return;
    }
    panic_hook::install(!is_human);
    if let Some(error) = filter_error {
        tracing::warn!(filter, %error, "the log filter is invalid; logging at level \"info\"");
    }
}

/// Lets every panic and the error that ends the program pass `env_filter`.
///
/// A JSON log contains them whatever its filter is: they have nowhere else to go.
fn allow_fatal_errors(env_filter: EnvFilter) -> EnvFilter {
    let directives = [panic_hook::TARGET_DIRECTIVE, shutdown::TARGET_DIRECTIVE];
    directives
        .into_iter()
        .filter_map(|directive| directive.parse().ok())
        .fold(env_filter, EnvFilter::add_directive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_filter_is_refused_and_empty_filter_is_the_default() {
        assert_eq!(parse_filter("info,classify=debug"), Ok("info,classify=debug".to_owned()));
        assert_eq!(parse_filter(" "), Ok("info".to_owned()));
        assert!(parse_filter("a=b=c").is_err());
    }

    #[test]
    fn filter_can_replace_the_directives_of_the_quiet_modules() {
        let directives = |filter| add_quiet_modules(filter).unwrap().to_string();
        assert!(directives("info").contains("wgpu_hal::gles=off"), "{}", directives("info"));
        let replaced = directives("info,wgpu_hal::gles=warn");
        assert!(replaced.contains("wgpu_hal::gles=warn"), "{replaced}");
        assert!(!replaced.contains("wgpu_hal::gles=off"), "{replaced}");
    }
}
