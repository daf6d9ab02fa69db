//! Everything that can be set, from flags and environment.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    time::Duration,
};

use clap::{Args, Parser};
use platform::{
    bucket::BucketLocation,
    cloud::CloudArgs,
    config::{Validate, parse_bytes, parse_seconds},
    cpu::cores,
    http::HttpLimits,
    telemetry::LogArgs,
    topic::TopicName,
};

use crate::image::{Limits, Recipe};

/// Prepares images: POST a picture to /preprocess, ask for its prediction at /predictions/{id}.
#[derive(Clone, Debug, Parser)]
#[command(name = "preprocess", version)]
pub struct Config {
    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "PORT", default_value_t = 8000)]
    pub port: u16,
    /// Address to listen on
    #[arg(long, env = "HOST", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub host: IpAddr,
    /// Where images and predictions are: NAME or gs://NAME (Cloud Storage), file:PATH (a folder)
    #[arg(long, env = "BUCKET")]
    pub bucket: BucketLocation,
    /// Topic of Pub/Sub where images are announced, NAME or projects/PROJECT/topics/NAME; without it
    /// they are stored and not announced
    #[arg(long, env = "PREP_TOPIC", value_name = "TOPIC")]
    pub prep_topic: Option<TopicName>,
    /// Google Cloud.
    #[command(flatten)]
    pub cloud: CloudArgs,
    /// How pictures are prepared.
    #[command(flatten)]
    pub settings: Settings,
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

impl Validate for Config {
    fn problems(&self) -> Vec<String> {
        let mut problems = self.settings.problems();
        problems.extend(self.cloud.problems());
        if self.prep_topic.is_some() && self.topic_path().is_none() {
            problems.push(
                "--prep-topic (PREP_TOPIC): give projects/PROJECT/topics/NAME, or say the project with \
                 --google-cloud-project (GOOGLE_CLOUD_PROJECT)"
                    .to_owned(),
            );
        }
        problems
    }
}

impl Config {
    /// The topic's whole name.
    pub(crate) fn topic_path(&self) -> Option<String> {
        self.prep_topic.as_ref()?.path(self.cloud.google_cloud_project.as_deref())
    }
}

/// What can be tuned. Flags and variables begin with `preprocess`, because the program that runs
/// both services has those of the other one beside them.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[group(id = "preprocess")]
pub struct Settings {
    /// Shorter side of the stored picture in pixels; smaller pictures stay as they are
    #[arg(
        id = "preprocess_shorter_side",
        long = "preprocess-shorter-side",
        env = "PREPROCESS_SHORTER_SIDE",
        value_name = "PIXELS",
        default_value = "256"
    )]
    pub shorter_side: NonZeroU32,
    /// JPEG quality of the stored picture, 1 to 100
    #[arg(
        id = "preprocess_jpeg_quality",
        long = "preprocess-jpeg-quality",
        env = "PREPROCESS_JPEG_QUALITY",
        value_name = "QUALITY",
        default_value_t = 95,
        value_parser = clap::value_parser!(u8).range(1..=100)
    )]
    pub jpeg_quality: u8,
    /// Largest request body in bytes, also as 512KiB or 20MiB; larger is refused (413)
    #[arg(
        id = "preprocess_max_body_bytes",
        long = "preprocess-max-body-bytes",
        env = "PREPROCESS_MAX_BODY_BYTES",
        value_name = "BYTES",
        default_value = "20MiB",
        value_parser = parse_bytes
    )]
    pub max_body_bytes: usize,
    /// Largest upload in pixels
    #[arg(
        id = "preprocess_max_pixels",
        long = "preprocess-max-pixels",
        env = "PREPROCESS_MAX_PIXELS",
        value_name = "PIXELS",
        default_value = "50000000"
    )]
    pub max_pixels: NonZeroU64,
    /// Longest side of an upload in pixels
    #[arg(
        id = "preprocess_max_side",
        long = "preprocess-max-side",
        env = "PREPROCESS_MAX_SIDE",
        value_name = "PIXELS",
        default_value = "16384"
    )]
    pub max_side: NonZeroU32,
    /// Most files in one request
    #[arg(
        id = "preprocess_max_files",
        long = "preprocess-max-files",
        env = "PREPROCESS_MAX_FILES",
        value_name = "COUNT",
        default_value = "16"
    )]
    pub max_files: NonZeroUsize,
    /// Threads that decode, resize and encode [default: one a core]
    #[arg(
        id = "preprocess_threads",
        long = "preprocess-threads",
        env = "PREPROCESS_THREADS",
        value_name = "COUNT",
        default_value_t = cores(),
        hide_default_value = true
    )]
    pub threads: NonZeroUsize,
    /// Pictures that may wait for a thread or have one; more are refused (429)
    #[arg(
        id = "preprocess_queue_items",
        long = "preprocess-queue-items",
        env = "PREPROCESS_QUEUE_ITEMS",
        value_name = "COUNT",
        default_value = "64"
    )]
    pub queue_items: NonZeroUsize,
    /// Pixels of all pictures that may wait for a thread or have one; more are refused (429)
    #[arg(
        id = "preprocess_queue_pixels",
        long = "preprocess-queue-pixels",
        env = "PREPROCESS_QUEUE_PIXELS",
        value_name = "PIXELS",
        default_value_t = 200_000_000
    )]
    pub queue_pixels: u64,
    /// Seconds after which a request is given up
    #[arg(
        id = "preprocess_request_timeout",
        long = "preprocess-request-timeout",
        env = "PREPROCESS_REQUEST_TIMEOUT",
        value_name = "SECONDS",
        default_value = "60",
        value_parser = parse_seconds
    )]
    pub request_timeout: Duration,
    /// Most seconds that a request for a prediction may wait for it (?wait=)
    #[arg(
        id = "preprocess_max_wait",
        long = "preprocess-max-wait",
        env = "PREPROCESS_MAX_WAIT",
        value_name = "SECONDS",
        default_value = "30",
        value_parser = parse_seconds
    )]
    pub max_wait: Duration,
    /// Seconds that requests under way are given to finish at shutdown
    #[arg(
        id = "preprocess_drain_timeout",
        long = "preprocess-drain-timeout",
        env = "PREPROCESS_DRAIN_TIMEOUT",
        value_name = "SECONDS",
        default_value = "8",
        value_parser = parse_seconds
    )]
    pub drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shorter_side: const { NonZeroU32::new(256).unwrap() },
            jpeg_quality: 95,
            max_body_bytes: 20 << 20,
            max_pixels: const { NonZeroU64::new(50_000_000).unwrap() },
            max_side: const { NonZeroU32::new(16_384).unwrap() },
            max_files: const { NonZeroUsize::new(16).unwrap() },
            threads: cores(),
            queue_items: const { NonZeroUsize::new(64).unwrap() },
            queue_pixels: 200_000_000,
            request_timeout: Duration::from_secs(60),
            max_wait: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(8),
        }
    }
}

impl Validate for Settings {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.max_wait >= self.request_timeout {
            problems.push(format!(
                "--preprocess-max-wait ({} s) must be less than --preprocess-request-timeout ({} s)",
                self.max_wait.as_secs_f64(),
                self.request_timeout.as_secs_f64(),
            ));
        }
        if self.max_body_bytes == 0 {
            problems.push("--preprocess-max-body-bytes must be more than 0".to_owned());
        }
        problems
    }
}

impl Settings {
    /// What is made of an upload, and which uploads are refused.
    pub fn recipe(&self) -> Recipe {
        Recipe {
            shorter_side: self.shorter_side.get(),
            jpeg_quality: self.jpeg_quality,
            limits: Limits { max_pixels: self.max_pixels.get(), max_side: self.max_side.get() },
        }
    }

    pub(crate) fn http_limits(&self) -> HttpLimits {
        HttpLimits { max_body_bytes: self.max_body_bytes, request_timeout: self.request_timeout }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> Result<Config, (String, i32)> {
        let args = ["preprocess", "--bucket", "file:data"].into_iter().chain(args.iter().copied());
        platform::config::parse_from(args.map(Into::into))
    }

    #[test]
    fn defaults_are_the_same_in_code_and_on_the_command_line() {
        assert_eq!(parse(&[]).unwrap().settings, Settings::default());
    }

    #[test]
    fn a_wait_must_end_before_its_request() {
        let (text, status) = parse(&["--preprocess-max-wait", "60"]).unwrap_err();
        assert_eq!(status, platform::config::EXIT_USAGE);
        insta::assert_snapshot!(text, @"
        --preprocess-max-wait (60 s) must be less than --preprocess-request-timeout (60 s)
        try '--help'
        ");
    }

    #[test]
    fn a_topic_needs_a_project() {
        let (text, _) = parse(&["--prep-topic=images"]).unwrap_err();
        assert!(text.contains("GOOGLE_CLOUD_PROJECT"), "{text}");
        let config = parse(&["--prep-topic=images", "--google-cloud-project=p"]).unwrap();
        assert_eq!(config.topic_path().as_deref(), Some("projects/p/topics/images"));
        let config = parse(&["--prep-topic=projects/q/topics/images"]).unwrap();
        assert_eq!(config.topic_path().as_deref(), Some("projects/q/topics/images"));
    }

    #[test]
    fn every_bad_value_is_named_at_once() {
        let bad =
            ["--preprocess-jpeg-quality=0", "--preprocess-max-files=0", "--preprocess-max-body-bytes=big"];
        let (text, _) = parse(&bad).unwrap_err();
        for flag in ["--preprocess-jpeg-quality", "--preprocess-max-files", "--preprocess-max-body-bytes"] {
            assert!(text.contains(flag), "{flag} is not in:\n{text}");
        }
    }

    #[test]
    fn help() {
        // Without the values that the environment of this test happens to have.
        let mut command = Config::command().term_width(100).mut_args(|arg| arg.hide_env_values(true));
        insta::assert_snapshot!(command.render_help(), @"
        Prepares images: POST a picture to /preprocess, ask for its prediction at /predictions/{id}

        Usage: preprocess [OPTIONS] --bucket <BUCKET>

        Options:
              --port <PORT>
                  Port to listen on; 0 takes a free one [env: PORT] [default: 8000]
              --host <HOST>
                  Address to listen on [env: HOST] [default: 0.0.0.0]
              --bucket <BUCKET>
                  Where images and predictions are: NAME or gs://NAME (Cloud Storage), file:PATH (a folder)
                  [env: BUCKET]
              --prep-topic <TOPIC>
                  Topic of Pub/Sub where images are announced, NAME or projects/PROJECT/topics/NAME; without
                  it they are stored and not announced [env: PREP_TOPIC]
              --google-cloud-project <PROJECT>
                  Project of topics and subscriptions that are named without one [env: GOOGLE_CLOUD_PROJECT]
              --storage-emulator-host <ADDRESS>
                  Address of an emulator of Cloud Storage, as in localhost:4443 [env: STORAGE_EMULATOR_HOST]
              --pubsub-emulator-host <ADDRESS>
                  Address of an emulator of Pub/Sub, as in localhost:8085 [env: PUBSUB_EMULATOR_HOST]
              --cloud-timeout <SECONDS>
                  Seconds that a call to Cloud Storage or Pub/Sub may take, further attempts included [env:
                  CLOUD_TIMEOUT] [default: 10]
              --preprocess-shorter-side <PIXELS>
                  Shorter side of the stored picture in pixels; smaller pictures stay as they are [env:
                  PREPROCESS_SHORTER_SIDE] [default: 256]
              --preprocess-jpeg-quality <QUALITY>
                  JPEG quality of the stored picture, 1 to 100 [env: PREPROCESS_JPEG_QUALITY] [default: 95]
              --preprocess-max-body-bytes <BYTES>
                  Largest request body in bytes, also as 512KiB or 20MiB; larger is refused (413) [env:
                  PREPROCESS_MAX_BODY_BYTES] [default: 20MiB]
              --preprocess-max-pixels <PIXELS>
                  Largest upload in pixels [env: PREPROCESS_MAX_PIXELS] [default: 50000000]
              --preprocess-max-side <PIXELS>
                  Longest side of an upload in pixels [env: PREPROCESS_MAX_SIDE] [default: 16384]
              --preprocess-max-files <COUNT>
                  Most files in one request [env: PREPROCESS_MAX_FILES] [default: 16]
              --preprocess-threads <COUNT>
                  Threads that decode, resize and encode [default: one a core] [env: PREPROCESS_THREADS]
              --preprocess-queue-items <COUNT>
                  Pictures that may wait for a thread or have one; more are refused (429) [env:
                  PREPROCESS_QUEUE_ITEMS] [default: 64]
              --preprocess-queue-pixels <PIXELS>
                  Pixels of all pictures that may wait for a thread or have one; more are refused (429)
                  [env: PREPROCESS_QUEUE_PIXELS] [default: 200000000]
              --preprocess-request-timeout <SECONDS>
                  Seconds after which a request is given up [env: PREPROCESS_REQUEST_TIMEOUT] [default: 60]
              --preprocess-max-wait <SECONDS>
                  Most seconds that a request for a prediction may wait for it (?wait=) [env:
                  PREPROCESS_MAX_WAIT] [default: 30]
              --preprocess-drain-timeout <SECONDS>
                  Seconds that requests under way are given to finish at shutdown [env:
                  PREPROCESS_DRAIN_TIMEOUT] [default: 8]
              --log <LOG>
                  What is logged: a level, or levels by target, as in `info,classify=debug` [env: RUST_LOG]
                  [default: info]
              --log-format <LOG_FORMAT>
                  How the log looks [env: LOG_FORMAT] [default: auto] [possible values: auto, human, json]
          -h, --help
                  Print help (see more with '--help')
          -V, --version
                  Print version
        ");
    }
}
