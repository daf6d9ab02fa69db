//! The service as a separate program, which parses its configuration and opens its bucket and its topic.

use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use contract::ModelKey;
use platform::{
    cloud::CloudArgs,
    config::Validate,
    http::HttpServerArgs,
    service::ServiceArgs,
    telemetry::LogArgs,
    topic::{PubSubTopic, SharedTopic, TopicName},
};

use crate::{Application, Settings};

/// Prepares images: POST a picture to /preprocess, ask for its prediction at /predictions/{id}.
#[derive(Clone, Debug, Parser)]
#[command(name = "preprocess", version, mut_arg("port", |port| port.required(false).default_value("8000")))]
pub struct Config {
    /// Address to listen on, and the bucket.
    #[command(flatten)]
    pub service: ServiceArgs,
    /// Pub/Sub topic that images are announced on, NAME or projects/PROJECT/topics/NAME [default: none,
    /// images are stored and not announced]
    #[arg(long, env = "PREP_TOPIC", value_name = "TOPIC")]
    pub prep_topic: Option<TopicName>,
    /// Model that classify runs, NAME-CHECKSUM8: its name and the first 8 digits of its SHA-256, both as in the
    /// /ready of classify [default: not known; GET /predictions/{id} returns the prediction of the first model]
    #[arg(long, env, value_name = "MODEL")]
    pub preprocess_model: Option<ModelKey>,
    /// Settings of the HTTP server.
    #[command(flatten)]
    pub http: HttpServerArgs,
    /// Access to Google Cloud.
    #[command(flatten)]
    pub cloud: CloudArgs,
    /// Settings of the service.
    #[command(flatten)]
    pub settings: Settings,
    /// Level and format of the log.
    #[command(flatten)]
    pub log: LogArgs,
}

impl Validate for Config {
    fn problems(&self) -> Vec<String> {
        let mut problems = self.settings.problems();
        problems.extend(self.http.problems());
        problems.extend(self.cloud.problems());
        if self.prep_topic.is_some() && self.topic_name().is_none() {
            problems.push(
                "--prep-topic (PREP_TOPIC): give projects/PROJECT/topics/NAME, or set the project with \
                 --google-cloud-project (GOOGLE_CLOUD_PROJECT)"
                    .to_owned(),
            );
        }
        problems
    }
}

impl Config {
    /// Returns the full name of the topic, or `None` if no topic is set or its project is unknown.
    pub(crate) fn topic_name(&self) -> Option<String> {
        self.prep_topic.as_ref()?.resource_name(self.cloud.google_cloud_project.as_deref())
    }
}

impl Application {
    /// Opens the bucket and the topic of `config`, and binds the port.
    ///
    /// # Errors
    /// Returns an error when the bucket or the topic cannot be opened, or the port cannot be bound.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let bucket = config
            .service
            .bucket
            .open(&config.cloud)
            .await
            .context("the bucket (BUCKET) cannot be opened")?;
        let topic = match config.topic_name() {
            Some(name) => {
                let topic = PubSubTopic::open(&name, &config.cloud).await;
                Some(Arc::new(topic.context("the topic (PREP_TOPIC) cannot be opened")?) as SharedTopic)
            }
            None => {
                tracing::warn!(
                    "PREP_TOPIC is not set, so images are stored but not announced; classify is notified of \
                     them only if the bucket sends notifications"
                );
                None
            }
        };
        let server = config.http.server_config(config.service.listen_address(), "PORT", 1);
        Self::assemble(server, config.settings, bucket, topic, config.preprocess_model).await
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
    fn default_settings_equal_the_defaults_of_the_flags() {
        assert_eq!(parse(&[]).unwrap().settings, Settings::default());
    }

    #[test]
    fn max_wait_must_be_shorter_than_the_request_timeout() {
        let (text, status) = parse(&["--preprocess-max-wait", "60"]).unwrap_err();
        assert_eq!(status, platform::config::EXIT_USAGE);
        insta::assert_snapshot!(text, @"
        --preprocess-max-wait (60 s) must be less than --preprocess-request-timeout (60 s)
        try '--help'
        ");
    }

    #[test]
    fn too_little_memory_and_too_long_timeouts_are_refused() {
        let (text, _) = parse(&["--preprocess-max-memory=64MiB"]).unwrap_err();
        assert!(text.contains("--preprocess-max-memory (67108864 bytes)"), "{text}");
        parse(&["--preprocess-max-memory=96MiB"]).unwrap();
        let (text, _) =
            parse(&["--preprocess-upload-timeout=60", "--preprocess-queue-timeout=61"]).unwrap_err();
        for flag in ["--preprocess-upload-timeout (60 s)", "--preprocess-queue-timeout (61 s)"] {
            assert!(text.contains(flag), "{text}");
        }
    }

    #[test]
    fn topic_without_a_project_is_refused() {
        let (text, _) = parse(&["--prep-topic=images"]).unwrap_err();
        assert!(text.contains("GOOGLE_CLOUD_PROJECT"), "{text}");
        let config = parse(&["--prep-topic=images", "--google-cloud-project=p"]).unwrap();
        assert_eq!(config.topic_name().as_deref(), Some("projects/p/topics/images"));
        let config = parse(&["--prep-topic=projects/q/topics/images"]).unwrap();
        assert_eq!(config.topic_name().as_deref(), Some("projects/q/topics/images"));
    }

    #[test]
    fn all_invalid_values_are_reported_together() {
        let bad =
            ["--preprocess-jpeg-quality=0", "--preprocess-max-files=0", "--preprocess-max-body-bytes=big"];
        let (text, _) = parse(&bad).unwrap_err();
        for flag in ["--preprocess-jpeg-quality", "--preprocess-max-files", "--preprocess-max-body-bytes"] {
            assert!(text.contains(flag), "{flag} is not in:\n{text}");
        }
    }

    #[test]
    fn help_lists_every_flag() {
        // Hides the values of the environment variables, because they differ between machines.
        let mut command = Config::command().term_width(100).mut_args(|arg| arg.hide_env_values(true));
        insta::assert_snapshot!(command.render_help(), @"
        Prepares images: POST a picture to /preprocess, ask for its prediction at /predictions/{id}

        Usage: preprocess [OPTIONS] --bucket <BUCKET>

        Options:
              --port <PORT>
                  Port to listen on; 0 picks a free one [env: PORT] [default: 8000]
              --host <HOST>
                  Address to listen on [env: HOST] [default: 0.0.0.0]
              --bucket <BUCKET>
                  Bucket of images and predictions: NAME or gs://NAME (Cloud Storage), file:PATH (a folder)
                  [env: BUCKET]
              --prep-topic <TOPIC>
                  Pub/Sub topic that images are announced on, NAME or projects/PROJECT/topics/NAME [default:
                  none, images are stored and not announced] [env: PREP_TOPIC]
              --preprocess-model <MODEL>
                  Model that classify runs, NAME-CHECKSUM8: its name and the first 8 digits of its SHA-256,
                  both as in the /ready of classify [default: not known; GET /predictions/{id} returns the
                  prediction of the first model] [env: PREPROCESS_MODEL]
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
              --preprocess-shorter-side <PIXELS>
                  Shorter side of the stored image in pixels; smaller images keep their size [default: 256,
                  or more in image-pipeline if the model needs more] [env: PREPROCESS_SHORTER_SIDE]
              --preprocess-jpeg-quality <QUALITY>
                  JPEG quality of the stored image, 1 to 100 [env: PREPROCESS_JPEG_QUALITY] [default: 95]
              --preprocess-max-body-bytes <BYTES>
                  Maximum length of a request body in bytes, as in 512KiB or 32MiB; longer ones are refused
                  (413) [env: PREPROCESS_MAX_BODY_BYTES] [default: 32MiB]
              --preprocess-max-pixels <PIXELS>
                  Maximum number of pixels of a baseline JPEG, a HEIC or an AVIF [env:
                  PREPROCESS_MAX_PIXELS] [default: 64000000]
              --preprocess-max-pixels-other <PIXELS>
                  Maximum number of pixels of any other upload; --preprocess-max-pixels applies as well
                  [env: PREPROCESS_MAX_PIXELS_OTHER] [default: 30000000]
              --preprocess-max-scans <COUNT>
                  Maximum number of scans of a JPEG; progressive JPEGs usually have about ten [env:
                  PREPROCESS_MAX_SCANS] [default: 32]
              --preprocess-max-side <PIXELS>
                  Maximum length of a side of an upload in pixels [env: PREPROCESS_MAX_SIDE] [default:
                  16384]
              --preprocess-max-files <COUNT>
                  Maximum number of files in one request [env: PREPROCESS_MAX_FILES] [default: 16]
              --preprocess-max-memory <BYTES>
                  Maximum memory in bytes for uploads and their processing together [env:
                  PREPROCESS_MAX_MEMORY] [default: 320MiB]
              --preprocess-max-picture-memory <BYTES>
                  Maximum memory in bytes for processing one image; images that need more are refused (422)
                  [env: PREPROCESS_MAX_PICTURE_MEMORY] [default: 240MiB]
              --preprocess-threads <COUNT>
                  Number of threads that decode, resize and encode [default: one per core] [env:
                  PREPROCESS_THREADS]
              --preprocess-queue-items <COUNT>
                  Maximum number of images that are waiting or being processed; further images are refused
                  (429) [env: PREPROCESS_QUEUE_ITEMS] [default: 64]
              --preprocess-queue-pixels <PIXELS>
                  Maximum total number of pixels of the images that are waiting or being processed; further
                  images are refused (429) [env: PREPROCESS_QUEUE_PIXELS] [default: 200000000]
              --preprocess-queue-timeout <SECONDS>
                  Maximum seconds that an upload or an image waits for memory before it is refused (429)
                  [env: PREPROCESS_QUEUE_TIMEOUT] [default: 10]
              --preprocess-upload-timeout <SECONDS>
                  Maximum seconds for a request body to arrive before the request is refused (408) [env:
                  PREPROCESS_UPLOAD_TIMEOUT] [default: 30]
              --preprocess-min-upload-rate <BYTES>
                  Minimum bytes per second at which a request body must arrive, after
                  --preprocess-upload-grace; slower ones are refused (408) [env: PREPROCESS_MIN_UPLOAD_RATE]
                  [default: 1KiB]
              --preprocess-upload-grace <SECONDS>
                  Maximum seconds by which a request body may fall behind --preprocess-min-upload-rate, and
                  so the longest pause of an upload [env: PREPROCESS_UPLOAD_GRACE] [default: 10]
              --preprocess-request-timeout <SECONDS>
                  Maximum seconds for a whole request [env: PREPROCESS_REQUEST_TIMEOUT] [default: 60]
              --preprocess-max-wait <SECONDS>
                  Maximum seconds that a request waits for a prediction (?wait=) [env: PREPROCESS_MAX_WAIT]
                  [default: 30]
              --preprocess-drain-timeout <SECONDS>
                  Maximum seconds that requests in progress get to finish at shutdown [env:
                  PREPROCESS_DRAIN_TIMEOUT] [default: 8]
              --log <LOG>
                  Events to log: a level, or levels by target, as in `info,classify=debug` [env: RUST_LOG]
                  [default: info]
              --log-format <LOG_FORMAT>
                  Format of the log [env: LOG_FORMAT] [default: auto] [possible values: auto, human, json]
          -h, --help
                  Print help (see more with '--help')
          -V, --version
                  Print version
        ");
    }
}
