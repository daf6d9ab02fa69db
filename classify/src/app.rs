//! Puts the parts together, starts them in order and stops them in order.

use std::{net::SocketAddr, sync::Arc, thread, time::Duration};

use anyhow::Context;
use fused::Isa;
use metrics::gauge;
use platform::{
    bucket::SharedBucket,
    cpu::{CpuLimits, CpuPool, cores},
    http::{Readiness, Server, SharedPushGuard},
    topic::{SharedSubscription, SharedTopic, Subscription},
};
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Settings,
    engine::{self, EngineSettings, Engines, Infer, NativeEngine, Running, Workers},
    gpu::{self, Adapter, Placement},
    in_flight::InFlight,
    network::spec,
    precision::Precision,
    pull,
    records::Records,
    routes,
    service::Service,
};

/// The version in the ready answer and the metrics.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A batch under way is given this long to end after everything else has.
const LAST_BATCH: Duration = Duration::from_secs(1);

type EngineSource = Box<dyn FnOnce() -> anyhow::Result<Vec<Box<dyn Infer>>> + Send>;

/// What the service stands on, and others may stand on too.
pub struct Parts {
    /// Where images and predictions are.
    pub bucket: SharedBucket,
    /// Where new predictions are published, if anywhere.
    pub results: Option<SharedTopic>,
    /// Where events are pulled from, if they do not come by themselves.
    pub subscription: Option<SharedSubscription>,
    /// Who may push, if that is checked here.
    pub push_guard: Option<SharedPushGuard>,
}

impl Parts {
    /// A bucket and nothing else: predictions are published nowhere, and anybody may push events.
    pub fn new(bucket: SharedBucket) -> Self {
        Self { bucket, results: None, subscription: None, push_guard: None }
    }
}

/// The service, bound to its port; not serving yet.
pub struct Application {
    server: Server,
    service: Arc<Service>,
    placement: Placement,
    workers: Workers,
    engines: EngineSource,
    subscription: Option<SharedSubscription>,
    push_guard: Option<SharedPushGuard>,
}

impl Application {
    /// The service on parts that exist already, with the compiled-in network, on a GPU if the settings
    /// and the machine have it so. Port 0 takes a free one.
    ///
    /// # Errors
    /// When a GPU is required and none can be used, or the search for one takes too long, the port cannot be
    /// had, or threads cannot be started.
    pub async fn assemble(address: SocketAddr, settings: Settings, parts: Parts) -> anyhow::Result<Self> {
        let asked = settings.clone();
        let placement = in_time(settings.warm_up_timeout, move || gpu::place(&asked)).await??;
        let Placement { backend, precision, .. } = placement;
        let (engines, max_batch) = (settings.engines(backend), settings.max_batch(backend).get());
        let load: EngineSource = Box::new(move || load(engines, precision, max_batch));
        Self::bind(address, settings, parts, placement, load).await
    }

    /// The service on given engines, one thread each, instead of the compiled-in network.
    ///
    /// # Errors
    /// When the port cannot be had or threads cannot be started.
    pub async fn assemble_with(
        address: SocketAddr,
        settings: Settings,
        parts: Parts,
        engines: Vec<Box<dyn Infer>>,
    ) -> anyhow::Result<Self> {
        let placement = Placement::cpu(settings.backend.unwrap_or_default());
        Self::bind(address, settings, parts, placement, Box::new(move || Ok(engines))).await
    }

    async fn bind(
        address: SocketAddr,
        settings: Settings,
        parts: Parts,
        placement: Placement,
        engines: EngineSource,
    ) -> anyhow::Result<Self> {
        let backend = placement.backend;
        let limits = CpuLimits {
            threads: cores(),
            max_jobs: settings.queue_items.get(),
            max_weight: settings.queue_pixels,
        };
        let decoders = CpuPool::new("classify", limits).context("the decoders' threads cannot be started")?;
        let (queue, workers) =
            engine::queue(settings.queue_items, settings.max_batch(backend), backend.name());
        let workers =
            workers.with_time_limit(settings.gpu.timeout).with_warm_up_limit(settings.warm_up_timeout);
        let server = Server::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let readiness = Readiness::default();
        let Parts { bucket, results, subscription, push_guard } = parts;
        let service = Arc::new(Service {
            settings,
            backend,
            readiness,
            records: Records::new(bucket.clone(), results),
            bucket,
            decoders,
            engines: queue,
            in_flight: InFlight::default(),
        });
        Ok(Self { server, service, placement, workers, engines, subscription, push_guard })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Whether it takes work; tells so also while [`Self::run`] runs.
    pub fn readiness(&self) -> Readiness {
        self.service.readiness.clone()
    }

    /// Serves until `stop` is cancelled, then finishes what is under way. The port answers at once;
    /// work is taken when every engine is warm.
    ///
    /// # Errors
    /// When the network does not load or warm up, the listener fails, there is nothing to pull from, or
    /// the GPU is lost.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { server, service, placement, workers, engines, subscription, push_guard } = self;
        // Its own, because a subscription that fails or a lost GPU stops the listener and nothing else.
        let stop = stop.child_token();
        let queue = service.engines.clone();
        let address = server.local_addr();
        let drain = service.settings.drain_timeout;
        let router = routes::router(Arc::clone(&service), push_guard);
        let serving = server.serve(router, service.readiness.clone(), stop.clone(), drain);
        tokio::pin!(serving);

        let running = tokio::select! {
            started = start(engines, workers, &service, address, placement, subscription.as_deref()) => {
                Some(started?)
            }
            // Stopped before the engines were warm.
            served = &mut serving => { served?; None }
        };
        if let Some(running) = running {
            let pulling = async {
                let Some(subscription) = &subscription else { return Ok(()) };
                let result = pull::run(subscription.as_ref(), &service, stop.clone()).await;
                stop.cancel();
                result
            };
            let watching = watch(&queue, &service, &stop);
            let (served, pulled, watched) = tokio::join!(serving, pulling, watching);
            served.context("the listener failed")?;
            stop_engines(&queue, running).await;
            watched?;
            pulled?;
        }
        tracing::info!("classify has stopped");
        Ok(())
    }
}

/// What `open` gives, unless it takes longer than `limit`. On a thread of its own, which a driver may hang
/// for ever: the process waits at its end for what tokio's threads do.
async fn in_time<T: Send + 'static>(
    limit: Duration,
    open: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let (report, opened) = oneshot::channel();
    let thread = thread::Builder::new().name("gpu".to_owned());
    // Nobody listens any more when the service is stopped, or gives up, while it opens.
    thread.spawn(move || drop(report.send(open())))?;
    let opened = tokio::time::timeout(limit, opened).await.with_context(|| {
        let limit = limit.as_secs_f64();
        format!("the search for a GPU did not end within {limit} s (CLASSIFY_WARM_UP_TIMEOUT)")
    })?;
    opened.context("the thread that looks for a GPU died")
}

/// The compiled-in network on what it was decided to run on.
fn load(
    settings: EngineSettings,
    precision: Precision,
    max_batch: usize,
) -> anyhow::Result<Vec<Box<dyn Infer>>> {
    let backend = settings.backend;
    if backend.is_gpu() {
        let engine = || Box::new(gpu::GpuEngine::new(backend, precision, max_batch)) as Box<dyn Infer>;
        return Ok((0..settings.engines.get()).map(|_| engine()).collect());
    }
    let engines = NativeEngine::load(settings)?;
    Ok(engines.into_iter().map(|engine| Box::new(engine) as Box<dyn Infer>).collect())
}

/// Waits for the GPU to be lost. The service takes no more work then and ends with an error, so that
/// whoever runs it starts another: a driver that failed once cannot be trusted within this process.
async fn watch(queue: &Engines, service: &Service, stop: &CancellationToken) -> anyhow::Result<()> {
    let reason = tokio::select! {
        reason = queue.lost() => reason,
        () = stop.cancelled() => return Ok(()),
    };
    service.readiness.set_draining();
    stop.cancel();
    anyhow::bail!("the GPU is lost: {reason}")
}

/// Loads and warms up every engine, and only then says that the service is ready.
async fn start(
    engines: EngineSource,
    workers: Workers,
    service: &Service,
    address: SocketAddr,
    placement: Placement,
    subscription: Option<&dyn Subscription>,
) -> anyhow::Result<Running> {
    let engines = tokio::task::spawn_blocking(engines).await.context("the network cannot be loaded")??;
    let count = engines.len();
    let running = workers.start(engines).await?;

    let Placement { backend, precision, adapter } = placement;
    let EngineSettings { threads, isa, .. } = service.settings.engines(backend);
    let isa = backend.instructions(isa).map(Isa::name);
    let (backend, precision) = (backend.name(), precision.name());
    if let Some(Adapter { name, driver, api, .. }) = adapter.clone() {
        gauge!("classify_gpu_info", "adapter" => name, "driver" => driver, "api" => api, "precision" => precision)
            .set(1.0);
    }
    gauge!("classify_build_info", "model" => spec::NAME, "backend" => backend, "version" => VERSION).set(1.0);
    service.readiness.set_ready(json!({
        "service": "classify",
        "version": VERSION,
        "model": spec::NAME,
        "model_sha256": spec::ONNX_SHA256,
        "license": spec::LICENSE,
        "backend": backend,
        "adapter": adapter,
        "precision": precision,
        "isa": isa,
        "engines": count,
        "threads": threads,
        "subscription": subscription.map(Subscription::name),
    }));
    tracing::info!(
        %address,
        model = spec::NAME,
        backend,
        adapter = adapter.map(tracing::field::display),
        precision,
        isa,
        engines = count,
        threads,
        version = VERSION,
        subscription = subscription.map(Subscription::name),
        "classify is ready"
    );
    Ok(running)
}

/// Lets the engines finish the queue. Whoever waited has been answered or cut off by the server by
/// now, so all that can be left is a batch under way.
async fn stop_engines(queue: &Engines, running: Running) {
    queue.close();
    if tokio::time::timeout(LAST_BATCH, running.finished()).await.is_err() {
        tracing::warn!("an engine was still busy at the end and was left behind");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_driver_that_hangs_is_not_waited_for() {
        let (test_is_on, forever) = mpsc::channel::<()>();
        let error = in_time(Duration::from_millis(50), move || forever.recv()).await.unwrap_err();
        assert!(error.to_string().contains("within 0.05 s (CLASSIFY_WARM_UP_TIMEOUT)"), "{error}");
        drop(test_is_on);
        assert_eq!(in_time(Duration::from_secs(60), || 1).await.unwrap(), 1);
    }
}
