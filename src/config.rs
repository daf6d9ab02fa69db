//! Configuration of the root binary: two ports, a data folder, and the settings of both services.

use std::{
    net::IpAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser};
use platform::{
    config::{Validate, parse_seconds},
    telemetry::LogArgs,
    topic::RetryPolicy,
};

/// Image classification pipeline: both services, a bucket on disk and a topic in SQLite, in one
/// process.
#[derive(Clone, Debug, Parser)]
#[command(name = "image-pipeline", version)]
pub struct Config {
    /// Address that both services listen on.
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    pub host: IpAddr,

    /// Port of preprocess, which takes uploads. 0 takes a free one.
    #[arg(long, env = "PREPROCESS_PORT", default_value_t = 8000)]
    pub preprocess_port: u16,

    /// Port of classify. 0 takes a free one.
    #[arg(long, env = "CLASSIFY_PORT", default_value_t = 8001)]
    pub classify_port: u16,

    /// Folder of the bucket and the topic; made if it is not there.
    #[arg(long, env = "DATA_DIR", default_value = "data")]
    pub data_dir: PathBuf,

    /// How announcements are delivered.
    #[command(flatten)]
    pub topic: TopicSettings,

    /// How pictures are prepared.
    #[command(flatten)]
    pub preprocess: preprocess::Settings,

    /// How images are classified.
    #[command(flatten)]
    pub classify: classify::Settings,

    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// How the topic on this machine delivers announcements to classify, and when it gives one up.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct TopicSettings {
    /// Seconds that classify has to answer an announcement before it is delivered again
    #[arg(
        id = "topic_ack_deadline",
        long = "topic-ack-deadline",
        env = "TOPIC_ACK_DEADLINE",
        default_value = "60",
        value_parser = parse_seconds
    )]
    pub ack_deadline: Duration,

    /// Seconds before the second attempt; doubled before each further one
    #[arg(
        id = "topic_min_backoff",
        long = "topic-min-backoff",
        env = "TOPIC_MIN_BACKOFF",
        default_value = "0.1",
        value_parser = parse_seconds
    )]
    pub min_backoff: Duration,

    /// Most seconds between two attempts
    #[arg(
        id = "topic_max_backoff",
        long = "topic-max-backoff",
        env = "TOPIC_MAX_BACKOFF",
        default_value = "60",
        value_parser = parse_seconds
    )]
    pub max_backoff: Duration,

    /// Attempts after which an announcement becomes a dead letter
    #[arg(
        id = "topic_max_attempts",
        long = "topic-max-attempts",
        env = "TOPIC_MAX_ATTEMPTS",
        default_value = "20"
    )]
    pub max_attempts: NonZeroU32,

    /// Announcements under way at once
    #[arg(
        id = "topic_max_outstanding",
        long = "topic-max-outstanding",
        env = "TOPIC_MAX_OUTSTANDING",
        default_value = "16"
    )]
    pub max_outstanding: NonZeroUsize,
}

impl TopicSettings {
    /// The settings as the topic takes them.
    pub fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy {
            ack_deadline: self.ack_deadline,
            min_backoff: self.min_backoff,
            max_backoff: self.max_backoff,
            max_attempts: self.max_attempts.get(),
            max_outstanding: self.max_outstanding.get(),
        }
    }
}

impl Validate for Config {
    fn problems(&self) -> Vec<String> {
        let mut problems = self.preprocess.problems();
        problems.extend(self.classify.problems());
        if self.topic.ack_deadline <= self.classify.request_timeout {
            problems.push(
                "--topic-ack-deadline (TOPIC_ACK_DEADLINE) must be longer than --classify-request-timeout \
                 (CLASSIFY_REQUEST_TIMEOUT), or slow announcements are delivered again while they are handled"
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
    fn defaults_are_those_of_the_parts() {
        let config = parse(&[]).unwrap();
        assert_eq!(config.topic.retry_policy(), RetryPolicy::default());
        assert_eq!(config.preprocess, preprocess::Settings::default());
        assert_eq!(config.classify, classify::Settings::default());
    }

    #[test]
    fn rules_between_settings_are_checked_together() {
        let (text, status) =
            parse(&["--preprocess-port", "9", "--classify-port", "9", "--topic-ack-deadline", "5"])
                .unwrap_err();
        assert_eq!(status, EXIT_USAGE);
        assert!(text.contains("are both 9") && text.contains("TOPIC_ACK_DEADLINE"), "{text}");
    }
}
