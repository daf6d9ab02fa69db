//! Everything that can be set, from flags and environment.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroUsize,
    time::Duration,
};

use clap::{Args, Parser, ValueEnum};
use platform::{
    bucket::BucketLocation,
    cloud::CloudArgs,
    config::{Validate, parse_bytes, parse_seconds},
    cpu::cores,
    http::push_auth::PushAuthArgs,
    telemetry::LogArgs,
    topic::{SubscriptionName, TopicName},
};

use crate::{backend::Backend, network::CLASSES};

/// Classifies images: POST an image to /classify, or let Pub/Sub push events to /pubsub.
#[derive(Clone, Debug, Parser)]
#[command(name = "classify", version)]
pub struct Config {
    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "PORT", default_value_t = 8001)]
    pub port: u16,
    /// Address to listen on
    #[arg(long, env = "HOST", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub host: IpAddr,
    /// Where images and predictions are: NAME or gs://NAME (Cloud Storage), file:PATH (a folder)
    #[arg(long, env = "BUCKET")]
    pub bucket: BucketLocation,
    /// How events come: pushed to /pubsub, or pulled from --prep-subscription
    #[arg(long, env = "CLASSIFY_MODE", value_enum, default_value_t = Mode::Push)]
    pub mode: Mode,
    /// Subscription of Pub/Sub to pull from, NAME or projects/PROJECT/subscriptions/NAME
    #[arg(long, env = "PREP_SUBSCRIPTION", value_name = "SUBSCRIPTION")]
    pub prep_subscription: Option<SubscriptionName>,
    /// Topic of Pub/Sub where every new prediction is published, NAME or projects/PROJECT/topics/NAME
    #[arg(long, env = "RESULTS_TOPIC", value_name = "TOPIC")]
    pub results_topic: Option<TopicName>,
    /// Who may push.
    #[command(flatten)]
    pub push_auth: PushAuthArgs,
    /// Google Cloud.
    #[command(flatten)]
    pub cloud: CloudArgs,
    /// How images are classified.
    #[command(flatten)]
    pub settings: Settings,
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// How events come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Pub/Sub posts them to `/pubsub`.
    Push,
    /// They are pulled from a subscription.
    Pull,
}

impl Validate for Config {
    fn problems(&self) -> Vec<String> {
        const SAY_THE_PROJECT: &str = "give its whole name, projects/PROJECT/…, or say the project with \
                                       --google-cloud-project (GOOGLE_CLOUD_PROJECT)";
        let mut problems = self.settings.problems();
        problems.extend(self.push_auth.problems());
        problems.extend(self.cloud.problems());
        match (self.mode, &self.prep_subscription) {
            (Mode::Pull, None) => problems.push(
                "--mode pull (CLASSIFY_MODE): --prep-subscription (PREP_SUBSCRIPTION) must say what to pull from"
                    .to_owned(),
            ),
            (Mode::Push, Some(_)) => problems.push(
                "--prep-subscription (PREP_SUBSCRIPTION): nothing is pulled without --mode pull (CLASSIFY_MODE)"
                    .to_owned(),
            ),
            _ => {}
        }
        if self.prep_subscription.is_some() && self.subscription_path().is_none() {
            problems.push(format!("--prep-subscription (PREP_SUBSCRIPTION): {SAY_THE_PROJECT}"));
        }
        if self.results_topic.is_some() && self.results_path().is_none() {
            problems.push(format!("--results-topic (RESULTS_TOPIC): {SAY_THE_PROJECT}"));
        }
        problems
    }
}

impl Config {
    /// The subscription's whole name.
    pub(crate) fn subscription_path(&self) -> Option<String> {
        self.prep_subscription.as_ref()?.path(self.cloud.google_cloud_project.as_deref())
    }

    /// The whole name of the topic for results.
    pub(crate) fn results_path(&self) -> Option<String> {
        self.results_topic.as_ref()?.path(self.cloud.google_cloud_project.as_deref())
    }
}

/// What can be tuned. Flags and variables begin with `classify`, because the program that runs both
/// services has those of the other one beside them.
#[derive(Clone, Debug, PartialEq, Args)]
#[group(id = "classify")]
pub struct Settings {
    /// Backend that runs the network; never another than this one
    #[arg(
        id = "classify_backend",
        long = "classify-backend",
        env = "CLASSIFY_BACKEND", value_name = "BACKEND",
        value_enum,
        default_value_t = Backend::default()
    )]
    pub backend: Backend,
    /// Engines (threads) that run the network side by side; the cores are split between them
    /// [default: one a core]
    #[arg(
        id = "classify_engines",
        long = "classify-engines",
        env = "CLASSIFY_ENGINES", value_name = "N",
        default_value_t = cores(),
        hide_default_value = true
    )]
    pub engines: NonZeroUsize,
    /// Images that an engine takes at once if they wait already [default: 1 on a CPU, where images of
    /// a larger batch take longer each, because together they leave the cache]
    #[arg(
        id = "classify_max_batch",
        long = "classify-max-batch",
        env = "CLASSIFY_MAX_BATCH",
        value_name = "N"
    )]
    pub max_batch: Option<NonZeroUsize>,
    /// Images that may wait for decoding, and as many again for an engine; more are refused (429)
    #[arg(
        id = "classify_queue_items",
        long = "classify-queue-items",
        env = "CLASSIFY_QUEUE_ITEMS",
        value_name = "N",
        default_value = "64"
    )]
    pub queue_items: NonZeroUsize,
    /// Pixels of all images that may wait for decoding; more are refused (429)
    #[arg(
        id = "classify_queue_pixels",
        long = "classify-queue-pixels",
        env = "CLASSIFY_QUEUE_PIXELS",
        value_name = "PIXELS",
        default_value_t = 200_000_000
    )]
    pub queue_pixels: u64,
    /// Largest image in bytes, also as 512KiB or 20MiB
    #[arg(
        id = "classify_max_image_bytes",
        long = "classify-max-image-bytes",
        env = "CLASSIFY_MAX_IMAGE_BYTES", value_name = "BYTES",
        default_value = "20MiB",
        value_parser = parse_bytes
    )]
    pub max_image_bytes: usize,
    /// Largest image in pixels
    #[arg(
        id = "classify_max_pixels",
        long = "classify-max-pixels",
        env = "CLASSIFY_MAX_PIXELS",
        value_name = "PIXELS",
        default_value_t = 50_000_000
    )]
    pub max_pixels: u64,
    /// Objects that the bucket announces are classified if their names begin with this, as in
    /// photos/; a message with a gcs_path goes by no prefix [default: all of them]
    #[arg(
        id = "classify_prefix",
        long = "classify-prefix",
        env = "CLASSIFY_PREFIX",
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    pub prefix: String,
    /// Classes in a prediction unless the request says otherwise
    #[arg(
        id = "classify_top_k",
        long = "classify-top-k",
        env = "CLASSIFY_TOP_K",
        value_name = "N",
        default_value = "5"
    )]
    pub top_k: NonZeroUsize,
    /// Seconds after which a request is given up
    #[arg(
        id = "classify_request_timeout",
        long = "classify-request-timeout",
        env = "CLASSIFY_REQUEST_TIMEOUT", value_name = "SECONDS",
        default_value = "30",
        value_parser = parse_seconds
    )]
    pub request_timeout: Duration,
    /// Seconds that requests under way are given to finish at shutdown
    #[arg(
        id = "classify_drain_timeout",
        long = "classify-drain-timeout",
        env = "CLASSIFY_DRAIN_TIMEOUT", value_name = "SECONDS",
        default_value = "8",
        value_parser = parse_seconds
    )]
    pub drain_timeout: Duration,
    /// Largest request body in bytes; Pub/Sub pushes up to 10 MB
    #[arg(
        id = "classify_max_body_bytes",
        long = "classify-max-body-bytes",
        env = "CLASSIFY_MAX_BODY_BYTES", value_name = "BYTES",
        default_value = "20MiB",
        value_parser = parse_bytes
    )]
    pub max_body_bytes: usize,
}

impl Settings {
    /// Images that an engine takes at once: as set, or what suits the backend.
    pub fn max_batch(&self) -> NonZeroUsize {
        self.max_batch.unwrap_or_else(|| self.backend.default_max_batch())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            backend: Backend::default(),
            engines: cores(),
            max_batch: None,
            queue_items: const { NonZeroUsize::new(64).unwrap() },
            queue_pixels: 200_000_000,
            max_image_bytes: 20 << 20,
            max_pixels: 50_000_000,
            prefix: String::new(),
            top_k: const { NonZeroUsize::new(5).unwrap() },
            request_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(8),
            max_body_bytes: 20 << 20,
        }
    }
}

impl Validate for Settings {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.top_k.get() > CLASSES {
            problems.push(format!("--classify-top-k (CLASSIFY_TOP_K): the model knows {CLASSES} classes"));
        }
        if self.request_timeout.is_zero() {
            problems.push(
                "--classify-request-timeout (CLASSIFY_REQUEST_TIMEOUT): 0 would give every request up"
                    .to_owned(),
            );
        }
        if self.max_image_bytes == 0 || self.max_pixels == 0 || self.max_body_bytes == 0 {
            problems.push(
                "--classify-max-image-bytes, --classify-max-pixels and --classify-max-body-bytes: 0 would refuse \
                 every image"
                    .to_owned(),
            );
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::CommandFactory;
    use platform::config::parse_from;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Config, (String, i32)> {
        parse_from(["classify"].iter().chain(arguments).map(OsString::from))
    }

    #[test]
    fn the_defaults_are_those_of_the_flags() {
        assert_eq!(parse(&["--bucket", "file:data"]).unwrap().settings, Settings::default());
        assert!(Settings::default().problems().is_empty());
    }

    #[test]
    fn rules_that_values_break_are_told_all_at_once() {
        let (text, status) = parse(&[
            "--bucket=file:data",
            "--classify-top-k=100000",
            "--classify-request-timeout=0",
            "--classify-max-pixels=0",
        ])
        .unwrap_err();
        assert_eq!(status, 64);
        for flag in ["--classify-top-k", "--classify-request-timeout", "--classify-max-pixels"] {
            assert!(text.contains(flag), "{flag} in {text}");
        }
    }

    #[test]
    fn pulling_needs_a_subscription_and_names_need_a_project() {
        let (text, _) = parse(&["--bucket=images", "--mode=pull", "--results-topic=results"]).unwrap_err();
        for variable in ["PREP_SUBSCRIPTION", "RESULTS_TOPIC"] {
            assert!(text.contains(variable), "{variable} in {text}");
        }
        let (text, _) =
            parse(&["--bucket=images", "--prep-subscription=projects/p/subscriptions/s12"]).unwrap_err();
        assert!(text.contains("--mode pull"), "{text}");
        let config = parse(&[
            "--bucket=images",
            "--mode=pull",
            "--prep-subscription=classify-pull",
            "--results-topic=projects/q/topics/results",
            "--google-cloud-project=p",
        ])
        .unwrap();
        assert_eq!(config.subscription_path().as_deref(), Some("projects/p/subscriptions/classify-pull"));
        assert_eq!(config.results_path().as_deref(), Some("projects/q/topics/results"));
    }

    #[test]
    fn help() {
        // Without what depends on the environment, the cargo features and the terminal.
        let mut command = Config::command()
            .mut_args(|arg| arg.hide_env_values(true))
            .mut_arg("classify_backend", |arg| arg.hide_possible_values(true).hide_default_value(true))
            .term_width(100);
        insta::assert_snapshot!(command.render_help().to_string(), @r#"
        Classifies images: POST an image to /classify, or let Pub/Sub push events to /pubsub

        Usage: classify [OPTIONS] --bucket <BUCKET>

        Options:
              --port <PORT>
                  Port to listen on; 0 takes a free one [env: PORT] [default: 8001]
              --host <HOST>
                  Address to listen on [env: HOST] [default: 0.0.0.0]
              --bucket <BUCKET>
                  Where images and predictions are: NAME or gs://NAME (Cloud Storage), file:PATH (a folder)
                  [env: BUCKET]
              --mode <MODE>
                  How events come: pushed to /pubsub, or pulled from --prep-subscription [env:
                  CLASSIFY_MODE] [default: push] [possible values: push, pull]
              --prep-subscription <SUBSCRIPTION>
                  Subscription of Pub/Sub to pull from, NAME or projects/PROJECT/subscriptions/NAME [env:
                  PREP_SUBSCRIPTION]
              --results-topic <TOPIC>
                  Topic of Pub/Sub where every new prediction is published, NAME or
                  projects/PROJECT/topics/NAME [env: RESULTS_TOPIC]
              --push-audience <AUDIENCE>
                  Audience that the token of a push must name; switches the check of push tokens on [env:
                  PUSH_AUDIENCE]
              --push-service-account <EMAIL>
                  Service account (its e-mail address) that the token of a push must name; else any that
                  Google signed for the audience [env: PUSH_SERVICE_ACCOUNT]
              --push-jwks-url <URL>
                  Where the public keys for the tokens of pushes are [env: PUSH_JWKS_URL] [default:
                  https://www.googleapis.com/oauth2/v3/certs]
              --google-cloud-project <PROJECT>
                  Project of topics and subscriptions that are named without one [env: GOOGLE_CLOUD_PROJECT]
              --storage-emulator-host <ADDRESS>
                  Address of an emulator of Cloud Storage, as in localhost:4443 [env: STORAGE_EMULATOR_HOST]
              --pubsub-emulator-host <ADDRESS>
                  Address of an emulator of Pub/Sub, as in localhost:8085 [env: PUBSUB_EMULATOR_HOST]
              --cloud-timeout <SECONDS>
                  Seconds that a call to Cloud Storage or Pub/Sub may take, further attempts included [env:
                  CLOUD_TIMEOUT] [default: 10]
              --classify-backend <BACKEND>
                  Backend that runs the network; never another than this one [env: CLASSIFY_BACKEND]
              --classify-engines <N>
                  Engines (threads) that run the network side by side; the cores are split between them
                  [default: one a core] [env: CLASSIFY_ENGINES]
              --classify-max-batch <N>
                  Images that an engine takes at once if they wait already [default: 1 on a CPU, where
                  images of a larger batch take longer each, because together they leave the cache] [env:
                  CLASSIFY_MAX_BATCH]
              --classify-queue-items <N>
                  Images that may wait for decoding, and as many again for an engine; more are refused (429)
                  [env: CLASSIFY_QUEUE_ITEMS] [default: 64]
              --classify-queue-pixels <PIXELS>
                  Pixels of all images that may wait for decoding; more are refused (429) [env:
                  CLASSIFY_QUEUE_PIXELS] [default: 200000000]
              --classify-max-image-bytes <BYTES>
                  Largest image in bytes, also as 512KiB or 20MiB [env: CLASSIFY_MAX_IMAGE_BYTES] [default:
                  20MiB]
              --classify-max-pixels <PIXELS>
                  Largest image in pixels [env: CLASSIFY_MAX_PIXELS] [default: 50000000]
              --classify-prefix <PREFIX>
                  Objects that the bucket announces are classified if their names begin with this, as in
                  photos/; a message with a gcs_path goes by no prefix [default: all of them] [env:
                  CLASSIFY_PREFIX]
              --classify-top-k <N>
                  Classes in a prediction unless the request says otherwise [env: CLASSIFY_TOP_K] [default:
                  5]
              --classify-request-timeout <SECONDS>
                  Seconds after which a request is given up [env: CLASSIFY_REQUEST_TIMEOUT] [default: 30]
              --classify-drain-timeout <SECONDS>
                  Seconds that requests under way are given to finish at shutdown [env:
                  CLASSIFY_DRAIN_TIMEOUT] [default: 8]
              --classify-max-body-bytes <BYTES>
                  Largest request body in bytes; Pub/Sub pushes up to 10 MB [env: CLASSIFY_MAX_BODY_BYTES]
                  [default: 20MiB]
              --log <LOG>
                  What is logged: a level, or levels by target, as in `info,classify=debug` [env: RUST_LOG]
                  [default: info]
              --log-format <LOG_FORMAT>
                  How the log looks [env: LOG_FORMAT] [default: auto] [possible values: auto, human, json]
          -h, --help
                  Print help (see more with '--help')
          -V, --version
                  Print version
        "#);
    }
}
