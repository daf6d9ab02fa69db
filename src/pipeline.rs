//! Both services, one bucket, one topic.

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

/// The two services, bound and not yet serving, and what carries messages from one to the other.
pub struct Pipeline {
    preprocess: preprocess::Application,
    classify: classify::Application,
    pusher: Pusher,
}

impl Pipeline {
    /// Opens the bucket (`DATA_DIR/bucket`) and the topic (`DATA_DIR/topic.sqlite`) and binds both
    /// services. Messages that an earlier run left undelivered are delivered by [`Pipeline::run`].
    ///
    /// # Errors
    /// When the data folder is not usable or a port is taken.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let data_dir = &config.data_dir;
        tokio::fs::create_dir_all(data_dir)
            .await
            .with_context(|| format!("cannot make the data folder {} (DATA_DIR)", data_dir.display()))?;
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
        let push_url = format!("http://{}/pubsub", reachable(classify.local_addr()));
        let pusher = topic.pusher(&push_url, config.topic.retry_policy());
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

    /// Where preprocess can be reached from this machine.
    pub fn preprocess_addr(&self) -> SocketAddr {
        reachable(self.preprocess.local_addr())
    }

    /// Where classify can be reached from this machine.
    pub fn classify_addr(&self) -> SocketAddr {
        reachable(self.classify.local_addr())
    }

    /// Readiness of classify: true once the model ran.
    pub fn classify_readiness(&self) -> platform::http::Readiness {
        self.classify.readiness()
    }

    /// Serves until `stop` is cancelled or a service fails. The parts stop in the order in which an
    /// image walks through them, so that what was accepted still gets its prediction where the drain
    /// times allow it; what is left waits in the topic for the next start.
    ///
    /// # Errors
    /// When a service fails.
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
            // An attempt before the model ran would be refused, and attempts are counted.
            tokio::select! {
                _ = classify_readiness.wait_ready() => pusher.run(stop_pusher.clone()).await,
                () = stop_pusher.cancelled() => {}
            }
            stop_classify.cancel();
        };
        let predictions = async {
            let result = classify.run(stop_classify.clone()).await;
            // Reached first only when classify failed: without it nothing else is worth running.
            stop_preprocess.cancel();
            result.context("classify failed")
        };
        let (uploads, (), predictions) = tokio::join!(uploads, deliveries, predictions);
        uploads.and(predictions)
    }
}

/// The address to connect to for a listener on `address`: a listener on all addresses is reached on
/// the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
