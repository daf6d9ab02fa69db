//! Builds and runs both services with one bucket and one topic.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use anyhow::Context;
use platform::{
    bucket::{DiskBucket, SharedBucket},
    topic::{Pusher, SharedTopic, SqliteTopic},
};
use tokio_util::sync::CancellationToken;

use crate::Config;

/// The two services, bound to their ports, and the pusher that delivers messages between them.
pub struct Pipeline {
    preprocess: preprocess::Application,
    classify: classify::Application,
    pusher: Pusher,
}

impl Pipeline {
    /// Opens the bucket and the topic and binds both services to their ports.
    ///
    /// The bucket is the folder `DATA_DIR/bucket`, the topic the file `DATA_DIR/topic.sqlite`.
    /// [`Pipeline::run`] also delivers the messages that an earlier run left undelivered.
    ///
    /// # Errors
    /// Returns an error if the data folder cannot be used or a port is in use.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let data_dir = &config.data_dir;
        tokio::fs::create_dir_all(data_dir)
            .await
            .with_context(|| format!("cannot create the data folder {} (DATA_DIR)", data_dir.display()))?;
        let bucket = DiskBucket::open(&data_dir.join("bucket")).await.context("cannot open the bucket")?;
        let bucket: SharedBucket = Arc::new(bucket);
        let topic =
            SqliteTopic::open(&data_dir.join("topic.sqlite")).await.context("cannot open the topic")?;

        let address = |port| SocketAddr::new(config.host, port);
        let classify = classify::Application::assemble(
            address(config.classify_port),
            config.classify.clone(),
            classify::Parts::new(bucket.clone()),
        )
        .await?;
        let push_url = format!("http://{}/pubsub", loopback_if_unspecified(classify.local_addr()));
        let pusher = topic.pusher(&push_url, config.topic);
        let announce: SharedTopic = topic;
        let preprocess = preprocess::Application::assemble(
            address(config.preprocess_port),
            config.preprocess.clone(),
            bucket,
            Some(announce),
        )
        .await?;
        Ok(Self { preprocess, classify, pusher })
    }

    /// Returns the address of preprocess, as reachable from this machine.
    pub fn preprocess_addr(&self) -> SocketAddr {
        loopback_if_unspecified(self.preprocess.local_addr())
    }

    /// Returns the address of classify, as reachable from this machine.
    pub fn classify_addr(&self) -> SocketAddr {
        loopback_if_unspecified(self.classify.local_addr())
    }

    /// Returns the readiness of classify, which is ready after the model's warm-up.
    pub fn classify_readiness(&self) -> platform::http::Readiness {
        self.classify.readiness()
    }

    /// Serves until `stop` is cancelled or a service fails.
    ///
    /// At shutdown preprocess stops first, then the pusher, then classify. Accepted uploads thus still get
    /// their predictions if the drain timeouts allow it; the others wait in the topic for the next start.
    ///
    /// # Errors
    /// Returns an error if a service fails.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { preprocess, classify, pusher } = self;
        let classify_readiness = classify.readiness();
        let stop_preprocess = stop.child_token();
        let stop_pusher = CancellationToken::new();
        let stop_classify = CancellationToken::new();

        let uploads = async {
            let result = preprocess.run(stop_preprocess.clone()).await;
            stop_pusher.cancel();
            result.context("preprocess failed")
        };
        let deliveries = async {
            // classify refuses deliveries before its warm-up, and every refusal counts as an attempt.
            tokio::select! {
                _ = classify_readiness.wait_ready() => pusher.run(stop_pusher.clone()).await,
                () = stop_pusher.cancelled() => {}
            }
            stop_classify.cancel();
        };
        let predictions = async {
            let result = classify.run(stop_classify.clone()).await;
            // If classify fails, it is the first to end. The other parts are useless without it.
            stop_preprocess.cancel();
            result.context("classify failed")
        };
        let (uploads, (), predictions) = tokio::join!(uploads, deliveries, predictions);
        uploads.and(predictions)
    }
}

/// Returns the address to connect to for a listener on `address`.
///
/// A listener on all addresses (`0.0.0.0` or `::`) is reached on the loopback address.
fn loopback_if_unspecified(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
