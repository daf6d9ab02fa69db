//! Assembles the parts of the service, starts them in order and stops them in order.

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
    VERSION,
    announcements::{AnnouncementHandler, Records},
    config::Settings,
    engine::{
        EnginePlan, Infer, InferenceQueue, NativeEngine, RunningEngines, WorkerBuilder, inference_queue,
    },
    gpu::{self, Adapter, Placement},
    model::spec,
    precision::Precision,
    pull, routes,
    service::Service,
};

/// Time that a running batch gets to finish after everything else has stopped.
const LAST_BATCH_TIMEOUT: Duration = Duration::from_secs(1);

/// Creates the engines. Runs after the port is open, because loading the network takes time.
type EngineLoader = Box<dyn FnOnce() -> anyhow::Result<Vec<Box<dyn Infer>>> + Send>;

/// The external parts of the service, which other services may share.
pub struct Parts {
    /// Bucket of images and predictions.
    pub bucket: SharedBucket,
    /// Topic on which new predictions are published; `None` publishes nothing.
    pub results: Option<SharedTopic>,
    /// Subscription to pull events from; `None` if they are pushed.
    pub subscription: Option<SharedSubscription>,
    /// Authenticates pushes; `None` admits every push.
    pub push_guard: Option<SharedPushGuard>,
}

impl Parts {
    /// Creates parts of a bucket only: nothing is published, and every push is admitted.
    pub fn new(bucket: SharedBucket) -> Self {
        Self { bucket, results: None, subscription: None, push_guard: None }
    }
}

/// The service, bound to its port but not serving yet.
pub struct Application {
    server: Server,
    service: Arc<Service>,
    placement: Placement,
    workers: WorkerBuilder,
    load_engines: EngineLoader,
    subscription: Option<SharedSubscription>,
    push_guard: Option<SharedPushGuard>,
}

impl Application {
    /// Assembles the service with the compiled-in network, on a GPU if the settings and the machine allow.
    ///
    /// Port 0 binds to a free port.
    ///
    /// # Errors
    /// When a GPU is required and none can be used, opening it times out, the address cannot be bound, or
    /// threads cannot be started.
    pub async fn assemble(address: SocketAddr, settings: Settings, parts: Parts) -> anyhow::Result<Self> {
        let (backend, gpu) = (settings.backend, settings.gpu.clone());
        let choose_placement = move || gpu::choose_placement(backend, &gpu);
        let placement = run_with_timeout(settings.warm_up_timeout, choose_placement).await??;
        let Placement { backend, precision, .. } = placement;
        let (plan, max_batch) = (settings.engine_plan(backend), settings.max_batch_on(backend).get());
        let load_engines: EngineLoader = Box::new(move || load_engines(plan, precision, max_batch));
        Self::bind(address, settings, parts, placement, load_engines).await
    }

    /// Assembles the service with `engines` instead of the compiled-in network. Each gets one thread.
    ///
    /// # Errors
    /// When the address cannot be bound or threads cannot be started.
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
        load_engines: EngineLoader,
    ) -> anyhow::Result<Self> {
        let backend = placement.backend;
        let limits = CpuLimits {
            threads: cores(),
            max_jobs: settings.queue_items.get(),
            max_weight: settings.queue_pixels,
        };
        let decoders = CpuPool::new("classify", limits).context("the decoder threads cannot be started")?;
        let (queue, workers) =
            inference_queue(settings.queue_items, settings.max_batch_on(backend), backend.name());
        let workers =
            workers.with_batch_timeout(settings.gpu.timeout).with_warm_up_timeout(settings.warm_up_timeout);
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
            queue,
        });
        Ok(Self { server, service, placement, workers, load_engines, subscription, push_guard })
    }

    /// Returns the address that the service listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Returns the readiness of the service, which is kept up to date while [`Self::run`] runs.
    pub fn readiness(&self) -> Readiness {
        self.service.readiness.clone()
    }

    /// Serves until `stop` is cancelled, then finishes running requests.
    ///
    /// The port responds at once; images are classified when every engine has warmed up.
    ///
    /// # Errors
    /// When the network does not load or warm up, the listener or the subscription fails, or the GPU is lost.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { server, service, placement, workers, load_engines, subscription, push_guard } = self;
        // A child token: a failed subscription or a lost GPU stops this service but not the caller's others.
        let stop = stop.child_token();
        let queue = service.queue.clone();
        let address = server.local_addr();
        let drain = service.settings.drain_timeout;
        let announcements = Arc::new(AnnouncementHandler::new(Arc::clone(&service)));
        let router = routes::router(Arc::clone(&service), Arc::clone(&announcements), push_guard);
        let serving = server.serve(router, service.readiness.clone(), stop.clone(), drain);
        tokio::pin!(serving);

        let running = tokio::select! {
            started = start_engines(
                load_engines, workers, &service, address, placement, subscription.as_deref(),
            ) => Some(started?),
            // Stopped before the engines had warmed up.
            served = &mut serving => { served?; None }
        };
        if let Some(running) = running {
            let pulling = async {
                let Some(subscription) = &subscription else { return Ok(()) };
                let result = pull::run(subscription.as_ref(), announcements, stop.clone()).await;
                stop.cancel();
                result
            };
            let watching = stop_when_gpu_is_lost(&queue, &service, &stop);
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

/// Runs `open` with a timeout, on a thread of its own.
///
/// A driver may hang for ever. On a thread of tokio's pool it would keep the process from ending.
async fn run_with_timeout<T: Send + 'static>(
    limit: Duration,
    open: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let (report, opened) = oneshot::channel();
    let thread = thread::Builder::new().name("gpu".to_owned());
    // Sending fails if the service was stopped or the timeout has passed.
    thread.spawn(move || drop(report.send(open())))?;
    let opened = tokio::time::timeout(limit, opened).await.with_context(|| {
        let limit = limit.as_secs_f64();
        format!("no GPU was opened within {limit} s (CLASSIFY_WARM_UP_TIMEOUT)")
    })?;
    opened.context("the thread that opens the GPU died")
}

/// Loads the compiled-in network and creates the engines of `plan`.
fn load_engines(
    plan: EnginePlan,
    precision: Precision,
    max_batch: usize,
) -> anyhow::Result<Vec<Box<dyn Infer>>> {
    let backend = plan.backend;
    if backend.is_gpu() {
        let engine = || Box::new(gpu::GpuEngine::new(backend, precision, max_batch)) as Box<dyn Infer>;
        return Ok((0..plan.engine_count.get()).map(|_| engine()).collect());
    }
    let engines = NativeEngine::load_all(plan)?;
    Ok(engines.into_iter().map(|engine| Box::new(engine) as Box<dyn Infer>).collect())
}

/// Waits until the GPU is lost, then stops the service and returns an error.
///
/// The state of a failed driver is unknown, so the process must end and be started again.
async fn stop_when_gpu_is_lost(
    queue: &InferenceQueue,
    service: &Service,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let reason = tokio::select! {
        reason = queue.lost() => reason,
        () = stop.cancelled() => return Ok(()),
    };
    service.readiness.set_draining();
    stop.cancel();
    anyhow::bail!("the GPU is lost: {reason}")
}

/// Loads and warms up every engine, then reports the service as ready.
async fn start_engines(
    load_engines: EngineLoader,
    workers: WorkerBuilder,
    service: &Service,
    address: SocketAddr,
    placement: Placement,
    subscription: Option<&dyn Subscription>,
) -> anyhow::Result<RunningEngines> {
    let engines =
        tokio::task::spawn_blocking(load_engines).await.context("the network cannot be loaded")??;
    let count = engines.len();
    let running = workers.start(engines).await?;

    let Placement { backend, precision, adapter } = placement;
    let EnginePlan { threads, isa, .. } = service.settings.engine_plan(backend);
    let isa = backend.kernel_isa(isa).map(Isa::name);
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

/// Closes the queue and waits for the engines.
///
/// The server has answered or aborted every request by now, so only a running batch can be left.
async fn stop_engines(queue: &InferenceQueue, running: RunningEngines) {
    queue.close();
    if tokio::time::timeout(LAST_BATCH_TIMEOUT, running.finished()).await.is_err() {
        tracing::warn!("an engine is still running a batch at the end; its thread is abandoned");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn driver_that_hangs_times_out() {
        let (test_is_on, forever) = mpsc::channel::<()>();
        let error = run_with_timeout(Duration::from_millis(50), move || forever.recv()).await.unwrap_err();
        assert!(error.to_string().contains("within 0.05 s (CLASSIFY_WARM_UP_TIMEOUT)"), "{error}");
        drop(test_is_on);
        assert_eq!(run_with_timeout(Duration::from_secs(60), || 1).await.unwrap(), 1);
    }
}
