//! [`Pipeline`] builds and runs both services, which share one bucket and one topic.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use anyhow::Context;
use platform::{
    bucket::{DiskBucket, SharedBucket},
    private_folder::create_private_folder,
    topic::{Pusher, SharedTopic, SqliteTopic},
};
use tokio_util::sync::CancellationToken;

use crate::Config;

/// The two services, bound to their ports, and the pusher, which delivers the messages of preprocess to
/// classify.
pub struct Pipeline {
    preprocess: preprocess::Application,
    classify: classify::Application,
    pusher: Pusher,
}

impl Pipeline {
    /// Opens the bucket and the topic, and binds both services to their ports.
    ///
    /// The bucket is the folder `DATA_DIR/bucket`, and the topic is the file `DATA_DIR/topic.sqlite`.
    /// [`Pipeline::run`] also delivers the messages that an earlier run left undelivered.
    ///
    /// # Errors
    /// Returns an error if the data folder cannot be created, the bucket or the topic cannot be opened, a
    /// port is in use, or the GPU that the settings of classify require is missing.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let data_dir = &config.data_dir;
        create_private_folder(data_dir)
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
        let shared_topic: SharedTopic = topic;
        let preprocess = preprocess::Application::assemble(
            address(config.preprocess_port),
            config.preprocess.clone(),
            bucket,
            Some(shared_topic),
        )
        .await?;
        Ok(Self { preprocess, classify, pusher })
    }

    /// Returns the address at which this machine reaches preprocess.
    pub fn preprocess_addr(&self) -> SocketAddr {
        loopback_if_unspecified(self.preprocess.local_addr())
    }

    /// Returns the address at which this machine reaches classify.
    pub fn classify_addr(&self) -> SocketAddr {
        loopback_if_unspecified(self.classify.local_addr())
    }

    /// Returns the readiness of classify. classify becomes ready after the warm-up of its model.
    pub fn classify_readiness(&self) -> platform::http::Readiness {
        self.classify.readiness()
    }

    /// Serves requests until `stop` is cancelled or a service fails.
    ///
    /// At shutdown, preprocess stops first, then the pusher, then classify. In this order, accepted uploads
    /// still get their predictions, as far as the drain timeouts allow. The announcements of the remaining
    /// uploads stay in the topic until the next start.
    ///
    /// # Errors
    /// Returns an error if a service fails.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { preprocess, classify, pusher } = self;
        let classify_readiness = classify.readiness();
        let stop_preprocess = stop.child_token();
        let stop_pusher = CancellationToken::new();
        let stop_classify = CancellationToken::new();

        let run_preprocess = async {
            let result = preprocess.run(stop_preprocess.clone()).await;
            stop_pusher.cancel();
            result.context("preprocess failed")
        };
        let run_pusher = async {
            // The pusher waits until classify is ready. Until then, classify refuses deliveries, and each
            // refusal would use up one of the message's limited delivery attempts.
            tokio::select! {
                _ = classify_readiness.wait_ready() => pusher.run(stop_pusher.clone()).await,
                () = stop_pusher.cancelled() => {}
            }
            stop_classify.cancel();
        };
        let run_classify = async {
            let result = classify.run(stop_classify.clone()).await;
            // After a normal shutdown this does nothing, because preprocess has already stopped. If classify
            // failed, this stops preprocess, which then stops the pusher. Neither is useful without classify.
            stop_preprocess.cancel();
            result.context("classify failed")
        };
        let (preprocess_result, (), classify_result) = tokio::join!(run_preprocess, run_pusher, run_classify);
        preprocess_result.and(classify_result)
    }
}

/// Returns the address at which this machine reaches a listener on `address`.
///
/// For a listener on all addresses (`0.0.0.0` or `::`) this is the loopback address.
fn loopback_if_unspecified(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
