//! Configuration of the program `classify`, which runs only this service.

use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use platform::{
    cloud::CloudArgs,
    config::Validate,
    http::{
        HttpServerArgs,
        push_auth::{PushAuth, PushAuthArgs},
    },
    service::ServiceArgs,
    telemetry::LogArgs,
    topic::{PubSubSubscription, PubSubTopic, SubscriptionName, TopicName},
};

use crate::{Application, Parts, Settings};

/// Classifies images: POST an image to /classify, or let Pub/Sub push events to /pubsub.
#[derive(Clone, Debug, Parser)]
#[command(name = "classify", version, mut_arg("port", |port| port.required(false).default_value("8001")))]
pub struct Config {
    /// Address to listen on, and the bucket.
    #[command(flatten)]
    pub service: ServiceArgs,
    /// Delivery of the announcements of new images: pushed to /pubsub, or pulled from --prep-subscription
    #[arg(long, env = "CLASSIFY_MODE", value_enum, default_value_t = Mode::Push)]
    pub mode: Mode,
    /// Pub/Sub subscription to pull from, NAME or projects/PROJECT/subscriptions/NAME
    #[arg(long, env = "PREP_SUBSCRIPTION", value_name = "SUBSCRIPTION")]
    pub prep_subscription: Option<SubscriptionName>,
    /// Pub/Sub topic that new predictions are published on, NAME or projects/PROJECT/topics/NAME
    #[arg(long, env = "RESULTS_TOPIC", value_name = "TOPIC")]
    pub results_topic: Option<TopicName>,
    /// Settings of the HTTP server.
    #[command(flatten)]
    pub http: HttpServerArgs,
    /// Verification of push tokens.
    #[command(flatten)]
    pub push_auth: PushAuthArgs,
    /// Access to Google Cloud.
    #[command(flatten)]
    pub cloud: CloudArgs,
    /// Settings of the classification.
    #[command(flatten)]
    pub settings: Settings,
    /// Settings of the log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Delivery of events, which announce new images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Pub/Sub pushes events to `/pubsub`.
    Push,
    /// Events are pulled from a subscription.
    Pull,
}

impl Validate for Config {
    fn problems(&self) -> Vec<String> {
        const PROJECT_NEEDED: &str = "give the full name, projects/PROJECT/…, or set the project with \
                                      --google-cloud-project (GOOGLE_CLOUD_PROJECT)";
        let mut problems = self.settings.problems();
        problems.extend(self.http.problems());
        problems.extend(self.push_auth.problems());
        problems.extend(self.cloud.problems());
        match (self.mode, &self.prep_subscription) {
            (Mode::Pull, None) => problems.push(
                "--mode pull (CLASSIFY_MODE): --prep-subscription (PREP_SUBSCRIPTION) must be set".to_owned(),
            ),
            (Mode::Push, Some(_)) => problems.push(
                "--prep-subscription (PREP_SUBSCRIPTION): needs --mode pull (CLASSIFY_MODE)".to_owned(),
            ),
            _ => {}
        }
        if self.prep_subscription.is_some() && self.subscription_name().is_none() {
            problems.push(format!("--prep-subscription (PREP_SUBSCRIPTION): {PROJECT_NEEDED}"));
        }
        if self.results_topic.is_some() && self.results_topic_name().is_none() {
            problems.push(format!("--results-topic (RESULTS_TOPIC): {PROJECT_NEEDED}"));
        }
        problems
    }
}

impl Config {
    /// Returns the full name of the subscription.
    ///
    /// Returns `None` if no subscription is set or its project is not known.
    pub(crate) fn subscription_name(&self) -> Option<String> {
        self.prep_subscription.as_ref()?.resource_name(self.cloud.google_cloud_project.as_deref())
    }

    /// Returns the full name of the results topic.
    ///
    /// Returns `None` if no topic is set or its project is not known.
    pub(crate) fn results_topic_name(&self) -> Option<String> {
        self.results_topic.as_ref()?.resource_name(self.cloud.google_cloud_project.as_deref())
    }

    /// Opens the bucket, the results topic, the subscription and the push guard.
    async fn open_parts(&self) -> anyhow::Result<Parts> {
        let cloud = &self.cloud;
        let bucket = self.service.bucket.open(cloud).await.context("the bucket (BUCKET) cannot be opened")?;
        let mut parts = Parts::new(bucket);
        if let Some(name) = self.results_topic_name() {
            let topic = PubSubTopic::open(&name, cloud).await;
            parts.results_topic =
                Some(Arc::new(topic.context("the results topic (RESULTS_TOPIC) cannot be opened")?));
        }
        if let Some(name) = self.subscription_name() {
            let subscription = PubSubSubscription::open(&name, cloud).await;
            let subscription =
                subscription.context("the subscription (PREP_SUBSCRIPTION) cannot be opened")?;
            parts.subscription = Some(Arc::new(subscription));
        }
        if let Some(push_auth) = self.push_auth.config() {
            tracing::info!(audience = push_auth.audience, "push tokens are verified");
            parts.push_guard = Some(Arc::new(PushAuth::new(push_auth)?));
        }
        Ok(parts)
    }
}

impl Application {
    /// Opens the parts that `config` names and assembles the service.
    ///
    /// # Errors
    /// Returns an error when the bucket, the results topic, the subscription or the push guard cannot be
    /// opened, or when [`Self::assemble`] fails.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let parts = config.open_parts().await?;
        let server = config.http.server_config(config.service.listen_address(), "PORT", 1);
        Self::assemble(server, config.settings, parts).await
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
    fn default_settings_equal_the_defaults_of_the_flags() {
        assert_eq!(parse(&["--bucket", "file:data"]).unwrap().settings, Settings::default());
        assert!(Settings::default().problems().is_empty());
    }

    #[test]
    fn all_invalid_values_are_reported_together() {
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
    fn subscription_and_pull_mode_need_each_other_and_names_need_a_project() {
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
        assert_eq!(config.subscription_name().as_deref(), Some("projects/p/subscriptions/classify-pull"));
        assert_eq!(config.results_topic_name().as_deref(), Some("projects/q/topics/results"));
    }

    #[test]
    fn help_lists_every_flag() {
        // The help is rendered without the parts that depend on environment variables, cargo features and the
        // terminal.
        let mut command = Config::command()
            .mut_args(|arg| arg.hide_env_values(true))
            .mut_arg("classify-backend", |arg| arg.hide_possible_values(true).hide_default_value(true))
            .term_width(100);
        insta::assert_snapshot!(command.render_help().to_string(), @r#"
        Classifies images: POST an image to /classify, or let Pub/Sub push events to /pubsub

        Usage: classify [OPTIONS] --bucket <BUCKET>

        Options:
              --port <PORT>
                  Port to listen on; 0 picks a free one [env: PORT] [default: 8001]
              --host <HOST>
                  Address to listen on [env: HOST] [default: 0.0.0.0]
              --bucket <BUCKET>
                  Bucket of images and predictions: NAME or gs://NAME (Cloud Storage), file:PATH (a folder)
                  [env: BUCKET]
              --mode <MODE>
                  Delivery of the announcements of new images: pushed to /pubsub, or pulled from
                  --prep-subscription [env: CLASSIFY_MODE] [default: push] [possible values: push, pull]
              --prep-subscription <SUBSCRIPTION>
                  Pub/Sub subscription to pull from, NAME or projects/PROJECT/subscriptions/NAME [env:
                  PREP_SUBSCRIPTION]
              --results-topic <TOPIC>
                  Pub/Sub topic that new predictions are published on, NAME or projects/PROJECT/topics/NAME
                  [env: RESULTS_TOPIC]
              --http-max-connections <COUNT>
                  Maximum number of open connections of a service; a further connection replaces the one
                  that has been idle longest [default: what the limit on open files allows, at most 1024]
                  [env: HTTP_MAX_CONNECTIONS]
              --http-head-timeout <SECONDS>
                  Maximum seconds for the head of a request to arrive, from its first byte. It also limits
                  how long a new connection may be silent [env: HTTP_HEAD_TIMEOUT] [default: 10]
              --http-idle-timeout <SECONDS>
                  Seconds without a request after which a connection is closed [env: HTTP_IDLE_TIMEOUT]
                  [default: 620]
              --http-write-timeout <SECONDS>
                  Maximum seconds that a client may take to receive a response [env: HTTP_WRITE_TIMEOUT]
                  [default: 30]
              --http-allowed-origins <ORIGINS>
                  Origins of other websites whose pages may send POST requests, separated by commas, as in
                  https://example.com [default: none] [env: HTTP_ALLOWED_ORIGINS]
              --push-audience <AUDIENCE>
                  Audience that a push token must name; enables the check of push tokens [env:
                  PUSH_AUDIENCE]
              --push-service-account <EMAIL>
                  E-mail address of the service account that a push token must belong to, or `any` for every
                  Google account; required with --push-audience [env: PUSH_SERVICE_ACCOUNT]
              --push-jwks-url <URL>
                  URL of the public keys that push tokens are verified with [env: PUSH_JWKS_URL] [default:
                  https://www.googleapis.com/oauth2/v3/certs]
              --google-cloud-project <PROJECT>
                  Project of topics and subscriptions whose names do not include a project [env:
                  GOOGLE_CLOUD_PROJECT]
              --storage-emulator-host <ADDRESS>
                  Address of a Cloud Storage emulator, as in localhost:4443 [env: STORAGE_EMULATOR_HOST]
              --pubsub-emulator-host <ADDRESS>
                  Address of a Pub/Sub emulator, as in localhost:8085 [env: PUBSUB_EMULATOR_HOST]
              --cloud-timeout <SECONDS>
                  Maximum seconds for a call to Cloud Storage or Pub/Sub, retries included [env:
                  CLOUD_TIMEOUT] [default: 10]
              --classify-backend <BACKEND>
                  Backend that runs the network. The service does not start if this backend cannot be used
                  [default: a GPU backend if --classify-gpu allows it, else the first CPU backend] [env:
                  CLASSIFY_BACKEND]
              --classify-gpu <WHEN>
                  Use of a GPU if --classify-backend is not set: require, prefer (else the CPU, with a
                  warning) or never [env: CLASSIFY_GPU] [default: prefer]
              --classify-allow-software-gpu
                  Accept a software GPU; for tests [env: CLASSIFY_ALLOW_SOFTWARE_GPU]
              --classify-precision <PRECISION>
                  Float type on a GPU: f32, or f16 if the GPU supports it [env: CLASSIFY_PRECISION]
                  [default: f32]
              --classify-gpu-cache <FOLDER>
                  Folder that stores the results of autotune, the choice of the fastest kernels for the GPU
                  [default: the user's cache folder; target/environment in a checkout] [env:
                  CLASSIFY_GPU_CACHE]
              --classify-gpu-timeout <SECONDS>
                  Maximum seconds for one batch on the GPU. After that time, the service ends with an error
                  [env: CLASSIFY_GPU_TIMEOUT] [default: 20]
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
                  Maximum number of images that are decoded, or wait for decoding or for an engine; further
                  images are refused (429) [env: CLASSIFY_QUEUE_ITEMS] [default: 64]
              --classify-queue-pixels <PIXELS>
                  Maximum total number of pixels of the images that are decoded or wait for decoding;
                  further images are refused (429) [env: CLASSIFY_QUEUE_PIXELS] [default: 200000000]
              --classify-queue-reserve <PERCENT>
                  Percentage of the two limits above that requests leave free for events, and events for
                  requests [env: CLASSIFY_QUEUE_RESERVE] [default: 25]
              --classify-max-image-bytes <BYTES>
                  Maximum size of an image in bytes, or with a unit, as in 512KiB or 32MiB [env:
                  CLASSIFY_MAX_IMAGE_BYTES] [default: 32MiB]
              --classify-max-pixels <PIXELS>
                  Maximum number of pixels of an image [env: CLASSIFY_MAX_PIXELS] [default: 64000000]
              --classify-max-scans <N>
                  Maximum number of scans of a JPEG; progressive JPEGs usually have about ten [env:
                  CLASSIFY_MAX_SCANS] [default: 32]
              --classify-max-memory <BYTES>
                  Maximum memory in bytes for request bodies, files from the bucket and decoding together
                  [env: CLASSIFY_MAX_MEMORY] [default: 320MiB]
              --classify-max-image-memory <BYTES>
                  Maximum memory in bytes for decoding one image; images that need more are refused (422)
                  [env: CLASSIFY_MAX_IMAGE_MEMORY] [default: 256MiB]
              --classify-queue-timeout <SECONDS>
                  Maximum seconds that a request or an image waits for memory before it is refused (429)
                  [env: CLASSIFY_QUEUE_TIMEOUT] [default: 10]
              --classify-upload-timeout <SECONDS>
                  Maximum seconds for a request body to arrive before the request is refused (408) [env:
                  CLASSIFY_UPLOAD_TIMEOUT] [default: 20]
              --classify-min-upload-rate <BYTES>
                  Minimum bytes per second at which a request body must arrive, after
                  --classify-upload-grace; slower ones are refused (408) [env: CLASSIFY_MIN_UPLOAD_RATE]
                  [default: 1KiB]
              --classify-upload-grace <SECONDS>
                  Maximum seconds by which a request body may fall behind --classify-min-upload-rate, and so
                  the longest pause of an upload [env: CLASSIFY_UPLOAD_GRACE] [default: 10]
              --classify-prefix <PREFIX>
                  Prefix of object names, such as photos/. Bucket notifications for other objects are
                  ignored; a message with a gcs_path is not filtered [default: none, all objects are
                  classified] [env: CLASSIFY_PREFIX]
              --classify-top-k <N>
                  Number of classes in a prediction unless the request sets top_k [env: CLASSIFY_TOP_K]
                  [default: 5]
              --classify-warm-up-timeout <SECONDS>
                  Seconds after which the service ends, or uses the CPU instead of the GPU, if the network
                  is not ready. The first start on a GPU takes minutes with autotune [env:
                  CLASSIFY_WARM_UP_TIMEOUT] [default: 1200]
              --classify-request-timeout <SECONDS>
                  Seconds after which a request is answered with 504 [env: CLASSIFY_REQUEST_TIMEOUT]
                  [default: 30]
              --classify-drain-timeout <SECONDS>
                  Seconds that running requests get to finish at shutdown [env: CLASSIFY_DRAIN_TIMEOUT]
                  [default: 8]
              --classify-max-body-bytes <BYTES>
                  Maximum size of a request body in bytes, except that of an event [env:
                  CLASSIFY_MAX_BODY_BYTES] [default: 32MiB]
              --classify-max-event-bytes <BYTES>
                  Maximum size of an event in bytes, as it is pushed or pulled. A larger event cannot be an
                  announcement and is acknowledged unread [env: CLASSIFY_MAX_EVENT_BYTES] [default: 256KiB]
              --classify-max-json-bytes <BYTES>
                  Maximum size of the JSON of a request in bytes [env: CLASSIFY_MAX_JSON_BYTES] [default:
                  64KiB]
              --log <LOG>
                  Events to log: a level, or levels by target, as in `info,classify=debug` [env: RUST_LOG]
                  [default: info]
              --log-format <LOG_FORMAT>
                  Format of the log [env: LOG_FORMAT] [default: auto] [possible values: auto, human, json]
          -h, --help
                  Print help (see more with '--help')
          -V, --version
                  Print version
        "#);
    }
}
