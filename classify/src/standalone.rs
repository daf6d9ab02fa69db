//! The service as a program of its own: its whole configuration, and the parts that it says.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use platform::{
    bucket::BucketLocation,
    cloud::CloudArgs,
    config::Validate,
    http::push_auth::{PushAuth, PushAuthArgs},
    telemetry::LogArgs,
    topic::{PubSubSubscription, PubSubTopic, SubscriptionName, TopicName},
};

use crate::{Application, Parts, Settings};

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

    /// Opens what the service stands on.
    async fn open(&self) -> anyhow::Result<Parts> {
        let cloud = &self.cloud;
        let bucket = self.bucket.open(cloud).await.context("the bucket (BUCKET) cannot be opened")?;
        let mut parts = Parts::new(bucket);
        if let Some(name) = self.results_path() {
            let topic = PubSubTopic::open(&name, cloud).await;
            parts.results =
                Some(Arc::new(topic.context("the results topic (RESULTS_TOPIC) cannot be opened")?));
        }
        if let Some(name) = self.subscription_path() {
            let subscription = PubSubSubscription::open(&name, cloud).await;
            let subscription =
                subscription.context("the subscription (PREP_SUBSCRIPTION) cannot be opened")?;
            parts.subscription = Some(Arc::new(subscription));
        }
        if let Some(check) = self.push_auth.config() {
            tracing::info!(audience = check.audience, "the tokens of pushes are checked");
            parts.push_guard = Some(Arc::new(PushAuth::new(check)?));
        }
        Ok(parts)
    }
}

impl Application {
    /// The service as `config` says it.
    ///
    /// # Errors
    /// When the bucket, the results topic or the subscription cannot be opened, or the port cannot be
    /// had.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let parts = config.open().await?;
        Self::assemble(SocketAddr::new(config.host, config.port), config.settings, parts).await
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
            .mut_arg("classify-backend", |arg| arg.hide_possible_values(true).hide_default_value(true))
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
                  Backend that runs the network, without fallback to another one [default: a GPU as
                  --classify-gpu allows, else the first CPU backend] [env: CLASSIFY_BACKEND]
              --classify-gpu <WHEN>
                  Use of a GPU if no backend is named: require, prefer (else the CPU, with a warning) or
                  never [env: CLASSIFY_GPU] [default: prefer]
              --classify-allow-software-gpu
                  Accept a software GPU; for tests [env: CLASSIFY_ALLOW_SOFTWARE_GPU]
              --classify-precision <PRECISION>
                  Float type on a GPU: f32, or f16 if the GPU supports it [env: CLASSIFY_PRECISION]
                  [default: f32]
              --classify-gpu-cache <FOLDER>
                  Folder that keeps the fastest kernels, as measured by autotune, for the next start
                  [default: the user's cache folder; in a checkout target/environment] [env:
                  CLASSIFY_GPU_CACHE]
              --classify-gpu-timeout <SECONDS>
                  Seconds after which an unfinished batch counts as lost and the service ends [env:
                  CLASSIFY_GPU_TIMEOUT] [default: 20]
              --classify-engines <N>
                  Number of engines that run in parallel. When only one is busy it uses all threads
                  [default: one per thread; 1 on a GPU] [env: CLASSIFY_ENGINES]
              --classify-threads <N>
                  Number of threads that the engines share [default: one per core] [env: CLASSIFY_THREADS]
              --classify-isa <ISA>
                  Widest instruction set that the backend `fused` may use: portable, neon, avx2 or avx512
                  [default: the widest of this CPU] [env: CLASSIFY_ISA]
              --classify-max-batch <N>
                  Maximum number of waiting images that an engine runs as one batch [default: 32 on a GPU; 1
                  on a CPU, where a larger batch exceeds the cache and takes longer per image] [env:
                  CLASSIFY_MAX_BATCH]
              --classify-queue-items <N>
                  Maximum number of images that wait for decoding, and of images that wait for an engine;
                  more are refused (429) [env: CLASSIFY_QUEUE_ITEMS] [default: 64]
              --classify-queue-pixels <PIXELS>
                  Maximum number of pixels of all images that wait for decoding; more are refused (429)
                  [env: CLASSIFY_QUEUE_PIXELS] [default: 200000000]
              --classify-max-image-bytes <BYTES>
                  Maximum size of an image in bytes, also as 512KiB or 20MiB [env: CLASSIFY_MAX_IMAGE_BYTES]
                  [default: 20MiB]
              --classify-max-pixels <PIXELS>
                  Maximum number of pixels of an image [env: CLASSIFY_MAX_PIXELS] [default: 50000000]
              --classify-prefix <PREFIX>
                  Prefix of the names of objects that are classified when the bucket announces them, such as
                  photos/. Messages with a gcs_path are not filtered [default: none, all objects are
                  classified] [env: CLASSIFY_PREFIX]
              --classify-top-k <N>
                  Number of classes in a prediction unless the request sets top_k [env: CLASSIFY_TOP_K]
                  [default: 5]
              --classify-warm-up-timeout <SECONDS>
                  Seconds after which the service ends if the network is not ready. The first start on a GPU
                  takes minutes with autotune [env: CLASSIFY_WARM_UP_TIMEOUT] [default: 1200]
              --classify-request-timeout <SECONDS>
                  Seconds after which a request is answered with 504 [env: CLASSIFY_REQUEST_TIMEOUT]
                  [default: 30]
              --classify-drain-timeout <SECONDS>
                  Seconds that running requests get to finish at shutdown [env: CLASSIFY_DRAIN_TIMEOUT]
                  [default: 8]
              --classify-max-body-bytes <BYTES>
                  Maximum size of a request body in bytes; Pub/Sub pushes up to 10 MB [env:
                  CLASSIFY_MAX_BODY_BYTES] [default: 20MiB]
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
