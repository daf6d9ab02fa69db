//! The configuration of the program `image-pipeline`. It consists of the ports, the data folder and the
//! settings of both services.

use std::{net::IpAddr, path::PathBuf};

use clap::Parser;
use platform::{
    config::Validate,
    http::HttpServerArgs,
    telemetry::LogArgs,
    topic::{BacklogPolicy, RetryPolicy},
};

/// Runs preprocess and classify in one process, with a bucket on disk and a topic in SQLite
#[derive(Clone, Debug, Parser)]
#[command(name = "image-pipeline", version)]
pub struct Config {
    /// Address that both services listen on
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Port of preprocess; 0 picks a free one
    #[arg(long, env = "PREPROCESS_PORT", default_value_t = 8000)]
    pub preprocess_port: u16,
    /// Port of classify; 0 picks a free one
    #[arg(long, env = "CLASSIFY_PORT", default_value_t = 8001)]
    pub classify_port: u16,
    /// Folder of the bucket and the topic; created if missing
    #[arg(long, env = "DATA_DIR", default_value = "data")]
    pub data_dir: PathBuf,
    /// Settings of the HTTP servers.
    #[command(flatten)]
    pub http: HttpServerArgs,
    /// Settings for the delivery of announcements from the topic to classify.
    #[command(flatten)]
    pub topic: RetryPolicy,
    /// Limits on the announcements that wait for their delivery.
    #[command(flatten)]
    pub backlog: BacklogPolicy,
    /// Settings of preprocess.
    #[command(flatten)]
    pub preprocess: preprocess::Settings,
    /// Settings of classify.
    #[command(flatten)]
    pub classify: classify::Settings,
    /// Settings of the log.
    #[command(flatten)]
    pub log: LogArgs,
}

impl Validate for Config {
    fn problems(&self) -> Vec<String> {
        let mut problems = self.preprocess.problems();
        problems.extend(self.classify.problems());
        problems.extend(self.http.problems());
        if self.topic.ack_deadline <= self.classify.request_timeout {
            problems.push(
                "--topic-ack-deadline (TOPIC_ACK_DEADLINE) must exceed --classify-request-timeout \
                 (CLASSIFY_REQUEST_TIMEOUT); otherwise an announcement may be delivered again while classify \
                 handles it"
                    .to_owned(),
            );
        }
        if self.preprocess_port == self.classify_port && self.preprocess_port != 0 {
            problems.push(format!(
                "--preprocess-port (PREPROCESS_PORT) and --classify-port (CLASSIFY_PORT) are both {}",
                self.preprocess_port
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use platform::config::{EXIT_USAGE, parse_from};

    use super::*;

    fn parse(flags: &[&str]) -> Result<Config, (String, i32)> {
        parse_from(["image-pipeline"].iter().chain(flags).map(Into::into))
    }

    #[test]
    fn defaults_of_the_program_are_the_defaults_of_its_settings_structs() {
        let config = parse(&[]).unwrap();
        assert_eq!(config.http, HttpServerArgs::default());
        assert_eq!(config.topic, RetryPolicy::default());
        assert_eq!(config.backlog, BacklogPolicy::default());
        assert_eq!(config.preprocess, preprocess::Settings::default());
        assert_eq!(config.classify, classify::Settings::default());
    }

    #[test]
    fn equal_ports_and_a_short_ack_deadline_are_reported_together() {
        let (text, status) =
            parse(&["--preprocess-port", "9", "--classify-port", "9", "--topic-ack-deadline", "5"])
                .unwrap_err();
        assert_eq!(status, EXIT_USAGE);
        assert!(text.contains("are both 9") && text.contains("TOPIC_ACK_DEADLINE"), "{text}");
    }
}
