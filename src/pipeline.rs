//! [`Pipeline`] builds and runs both services, which share one bucket and one topic.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use classify::model::GEOMETRY;
use platform::{
    bucket::DiskBucket,
    http::PUSH_PATH,
    private_folder::create_private_folder,
    topic::{Message, Pusher, SqliteTopic},
};
use tokio_util::sync::CancellationToken;

use crate::{Config, data_dir_lock::DataDirLock, stored_size::fit_to_model, sweep::Sweeper};

/// Number of HTTP servers in this process.
const SERVICE_COUNT: usize = 2;
/// Time that the services get to end after the drain timeout.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// The two services, bound to their ports, and the pusher, which delivers the messages of preprocess to
/// classify.
pub struct Pipeline {
    preprocess: preprocess::Application,
    classify: classify::Application,
    pusher: Pusher,
    sweeper: Sweeper,
    /// Held until the services have stopped.
    lock: DataDirLock,
    /// Maximum time that the shutdown of both services may take together.
    drain_timeout: Duration,
}

impl Pipeline {
    /// Opens the bucket and the topic, and binds both services to their ports.
    ///
    /// The bucket is the folder `DATA_DIR/bucket`, and the topic is the file `DATA_DIR/topic.sqlite`.
    /// [`Pipeline::run`] also delivers the messages that an earlier run left undelivered.
    ///
    /// # Errors
    /// Returns an error if the data folder cannot be created or another process uses it, the bucket or the topic
    /// cannot be opened, a port is in use, or the GPU that the settings of classify require is missing.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let data_dir = &config.data_dir;
        create_private_folder(data_dir)
            .with_context(|| format!("cannot create the data folder {} (DATA_DIR)", data_dir.display()))?;
        let lock = DataDirLock::acquire(data_dir)?;
        let bucket = DiskBucket::open(&data_dir.join("bucket")).await.context("cannot open the bucket")?;
        let bucket = Arc::new(bucket);
        let topic = SqliteTopic::open(&data_dir.join("topic.sqlite"), config.backlog, message_key)
            .await
            .context("cannot open the topic")?;

        let server = |port, port_setting| {
            config.http.server_config(SocketAddr::new(config.host, port), port_setting, SERVICE_COUNT)
        };
        let classify = classify::Application::assemble(
            server(config.classify_port, "CLASSIFY_PORT"),
            config.classify.clone(),
            classify::Parts::new(bucket.clone()),
        )
        .await?;
        let push_url = format!("http://{}{PUSH_PATH}", loopback_if_unspecified(classify.local_addr()));
        let dead_letters = Arc::new(classify.repeated_failures());
        let pusher = topic.pusher(&push_url, config.topic, dead_letters);
        let sweeper = Sweeper::new(bucket.clone(), Arc::clone(&topic));
        let preprocess = preprocess::Application::assemble(
            server(config.preprocess_port, "PREPROCESS_PORT"),
            fit_to_model(config.preprocess.clone(), GEOMETRY),
            bucket,
            Some(topic),
            // Only this program knows both services, so it tells preprocess which model classify runs.
            Some(classify::model::compiled_model().key()),
        )
        .await?;
        let drain_timeout = config.preprocess.preprocess_drain_timeout.max(config.classify.drain_timeout);
        Ok(Self { preprocess, classify, pusher, sweeper, lock, drain_timeout })
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
    /// uploads stay in the topic until the next start. Everything together takes at most the longer drain
    /// timeout and half a second.
    ///
    /// # Errors
    /// Returns an error if a service fails.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { preprocess, classify, pusher, sweeper, lock, drain_timeout } = self;
        let classify_readiness = classify.readiness();
        let stop_preprocess = stop.child_token();
        let stop_pusher = CancellationToken::new();
        // The pusher continues while preprocess stops, which can take until the process is killed.
        let pusher = pusher.with_shutdown(stop_preprocess.clone());
        let stop_classify = CancellationToken::new();

        let run_preprocess = async {
            preprocess.run(stop_preprocess.clone()).await;
            stop_pusher.cancel();
        };
        let run_pusher = async {
            // The pusher waits until classify is ready. Until then, classify refuses deliveries, and each
            // refusal would make the pause before the next delivery longer.
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
        let run_sweeper = sweeper.run(stop_pusher.clone());
        let run_all = async { tokio::join!(run_preprocess, run_pusher, run_sweeper, run_classify) };
        // Otherwise the drain timeouts of the services and the pusher would add up.
        let deadline = async {
            stop.cancelled().await;
            tokio::time::sleep(drain_timeout + STOP_GRACE).await;
        };
        let result = tokio::select! {
            ((), (), (), classify_result) = run_all => classify_result,
            () = deadline => {
                tracing::warn!(
                    seconds = drain_timeout.as_secs_f64(),
                    "the drain timeout is over; the work in progress is done after the next start"
                );
                Ok(())
            }
        };
        drop(lock);
        result
    }
}

/// Returns the id of the image that `message` announces. The topic finds a message by this key.
pub(crate) fn message_key(message: &Message) -> Option<String> {
    preprocess::announced_image_id(message).map(String::from)
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
