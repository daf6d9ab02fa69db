//! Assembles, starts and stops the service.
//!
//! [`Application::assemble`] opens the GPU and then the port. [`Application::run`] already serves requests
//! while the engines load the network, and pulls events once every engine has warmed up. At shutdown the
//! server stops before the engines, so that running requests can finish.

use std::{net::SocketAddr, sync::Arc, thread, time::Duration};

use anyhow::Context;
use contract::ModelId;
use fused::Isa;
use metrics::gauge;
use platform::{
    bucket::SharedBucket,
    cpu::{CpuLimits, CpuPool, cores},
    http::{BodyReceiver, Readiness, RefusalDelay, Server, ServerConfig, SharedPushGuard},
    memory_budget::{MemoryBudget, MemoryBudgetLimits},
    telemetry::{ForeignOutput, error_chain},
    topic::{SharedSubscription, SharedTopic, Subscription},
};
use serde_json::json;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    VERSION,
    announcements::{AnnouncementHandler, Records, RepeatedFailures},
    backend::Backend,
    config::Settings,
    engine::{
        EnginePlan, EngineStarter, Infer, InferenceQueue, NativeEngine, RunningEngines, inference_queue,
    },
    enlargement::EnlargementReport,
    gpu::{self, Adapter, Placement},
    json::LargeJsonPermits,
    model::{HEAD, Head, compiled_model, spec},
    precision::Precision,
    pull,
    queue_permits::QueuePermits,
    routes,
    service::Service,
};

/// Maximum time that the engines may take to finish their last batches at shutdown.
///
/// The time comes on top of the drain timeout, and the program must end within the drain timeout and a second.
const LAST_BATCH_TIMEOUT: Duration = Duration::from_millis(500);

/// Function that creates the engines.
///
/// The function may load the network, which takes time. It therefore runs after the port is open, so that the
/// service can already respond that it is starting.
type EngineLoader = Box<dyn FnOnce() -> anyhow::Result<Vec<Box<dyn Infer>>> + Send>;

/// Engines that are not loaded yet, and where they run.
struct EngineSource {
    placement: Placement,
    load: EngineLoader,
}

impl EngineSource {
    /// Returns the engines of the compiled-in network.
    fn new(placement: Placement, settings: &Settings) -> Self {
        let Placement { backend, precision, .. } = placement;
        let (plan, max_batch) = (settings.engine_plan(backend), settings.max_batch_on(backend).get());
        Self { placement, load: Box::new(move || load_engines(plan, precision, max_batch)) }
    }
}

/// The bucket, topic, subscription and push guard of the service. Other services may share them.
pub struct Parts {
    /// Bucket of images and predictions.
    pub bucket: SharedBucket,
    /// Topic on which new predictions are published, or `None` to publish nothing.
    pub results_topic: Option<SharedTopic>,
    /// Subscription from which events are pulled, or `None` if events are pushed.
    pub subscription: Option<SharedSubscription>,
    /// Guard that authenticates pushes, or `None` to admit every push.
    pub push_guard: Option<SharedPushGuard>,
    /// Identity of the model, which every record names.
    pub model: ModelId,
}

impl Parts {
    /// Creates parts with a bucket and the compiled-in model. Nothing is published, and every push is admitted.
    pub fn new(bucket: SharedBucket) -> Self {
        let model = compiled_model();
        Self { bucket, results_topic: None, subscription: None, push_guard: None, model }
    }
}

/// The assembled service. It is bound to its port but does not serve requests yet.
pub struct Application {
    server: Server,
    service: Arc<Service>,
    starter: EngineStarter,
    engines: EngineSource,
    /// Engines on the CPU that replace the engines on a GPU if these do not warm up.
    fallback: Option<EngineSource>,
    /// Redirects the output of the GPU's driver to the log until the engines have warmed up.
    driver_output: Option<ForeignOutput>,
    subscription: Option<SharedSubscription>,
    push_guard: Option<SharedPushGuard>,
}

impl Application {
    /// Assembles the service with the compiled-in network.
    ///
    /// The network runs on a GPU if the settings allow a GPU and the machine has one. `server` may be an
    /// address alone. The service binds to a free port if the port of the address is 0.
    ///
    /// # Errors
    /// Returns an error when a GPU is required and none can be used, the address cannot be bound, or threads
    /// cannot be started.
    pub async fn assemble(
        server: impl Into<ServerConfig>,
        settings: Settings,
        parts: Parts,
    ) -> anyhow::Result<Self> {
        let (backend, gpu) = (settings.backend, settings.gpu.clone());
        let choose_placement = move || gpu::choose_placement(backend, &gpu);
        let driver_output =
            if settings.gpu.allows_gpu(backend) { ForeignOutput::redirect_to_log() } else { None };
        let may_fall_back = settings.gpu.allows_cpu(backend);
        let placement = match open_gpu_with_timeout(settings.warm_up_timeout, choose_placement).await {
            Ok(placement) => placement?,
            Err(error) if may_fall_back => {
                gpu::warn_of_fallback(&error_chain(error.as_ref()));
                Placement::cpu(Backend::default())
            }
            Err(error) => return Err(error),
        };
        let fallback = (may_fall_back && placement.backend.is_gpu())
            .then(|| EngineSource::new(Placement::cpu(Backend::default()), &settings));
        let engines = EngineSource::new(placement, &settings);
        let application = Self::bind(server.into(), settings, HEAD, parts, engines, fallback).await?;
        Ok(Self { driver_output, ..application })
    }

    /// Assembles the service with `engines` instead of the compiled-in network.
    ///
    /// Each engine gets one thread.
    ///
    /// # Errors
    /// Returns an error when the address cannot be bound or threads cannot be started.
    pub async fn assemble_with(
        server: impl Into<ServerConfig>,
        settings: Settings,
        parts: Parts,
        engines: Vec<Box<dyn Infer>>,
    ) -> anyhow::Result<Self> {
        Self::assemble_with_head(server, settings, HEAD, parts, engines).await
    }

    /// Assembles the service with `engines`, whose outputs are those of `head` instead of the compiled-in head.
    ///
    /// Each engine gets one thread.
    ///
    /// # Errors
    /// Returns an error when the address cannot be bound or threads cannot be started.
    pub async fn assemble_with_head(
        server: impl Into<ServerConfig>,
        settings: Settings,
        head: Head,
        parts: Parts,
        engines: Vec<Box<dyn Infer>>,
    ) -> anyhow::Result<Self> {
        let placement = Placement::cpu(settings.backend.unwrap_or_default());
        let engines = EngineSource { placement, load: Box::new(move || Ok(engines)) };
        Self::bind(server.into(), settings, head, parts, engines, None).await
    }

    async fn bind(
        server: ServerConfig,
        settings: Settings,
        head: Head,
        parts: Parts,
        engines: EngineSource,
        fallback: Option<EngineSource>,
    ) -> anyhow::Result<Self> {
        let backend = engines.placement.backend;
        let queue_permits = QueuePermits::new(&settings.queue_limits());
        // The permits bound the number of jobs and their pixels.
        let limits = CpuLimits { threads: cores(), max_jobs: usize::MAX, max_weight: u64::MAX };
        let decoder_pool =
            CpuPool::new("classify", limits).context("the decoder threads cannot be started")?;
        let (queue, starter) =
            inference_queue(settings.queue_items, settings.max_batch_on(backend), backend.name());
        let starter = starter
            .with_batch_timeout(settings.gpu.batch_timeout)
            .with_warm_up_timeout(settings.warm_up_timeout);
        let server = Server::bind("classify", server).await?;
        let readiness = Readiness::default();
        let shares = settings.memory_shares();
        let new_memory_budget = |purpose, max_bytes, max_reservation_bytes| {
            let limits = MemoryBudgetLimits {
                max_bytes,
                max_reservation_bytes,
                max_waiting: settings.queue_items.get(),
                wait_timeout: settings.queue_timeout,
            };
            MemoryBudget::new("classify", purpose, &limits)
        };
        let file_memory = new_memory_budget("files", shares.file_bytes, shares.max_file_bytes);
        let decoding_memory = new_memory_budget("decoding", shares.decoding_bytes, shares.max_image_bytes);
        let Parts { bucket, results_topic, subscription, push_guard, model } = parts;
        let service = Arc::new(Service {
            bodies: BodyReceiver::new(settings.body_limits(), file_memory.clone()),
            refusal_delay: RefusalDelay::default(),
            file_memory,
            decoding_memory,
            max_image_memory: shares.max_image_bytes,
            settings,
            head,
            backend: watch::Sender::new(backend),
            readiness,
            records: Records::new(bucket.clone(), results_topic, model, head.record_base_name()),
            bucket,
            queue_permits,
            decoder_pool,
            queue,
            json_permits: LargeJsonPermits::default(),
            enlargements: EnlargementReport::default(),
        });
        let driver_output = None;
        Ok(Self { server, service, starter, engines, fallback, driver_output, subscription, push_guard })
    }

    /// Returns the address that the service listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Returns the readiness of the service, which is kept up to date while [`Self::run`] runs.
    pub fn readiness(&self) -> Readiness {
        self.service.readiness.clone()
    }

    /// Returns the recorder of the failures of images that a topic no longer delivers.
    pub fn repeated_failures(&self) -> RepeatedFailures {
        RepeatedFailures::new(self.service.records.clone(), self.service.bucket.name())
    }

    /// Serves until `stop_token` is cancelled, then finishes running requests.
    ///
    /// The service responds at once, but it refuses to classify images until every engine has warmed up.
    ///
    /// # Errors
    /// Returns an error when the network cannot be loaded, an engine does not warm up, the subscription fails,
    /// or an engine is lost because its GPU failed or hung.
    pub async fn run(self, stop_token: CancellationToken) -> anyhow::Result<()> {
        let Self { server, service, starter, engines, fallback, driver_output, subscription, push_guard } =
            self;
        // When the subscription fails or an engine is lost, the service cancels its own child token.
        // Cancelling the caller's token would also stop the caller's other services.
        let stop_token = stop_token.child_token();
        let queue = service.queue.clone();
        let address = server.local_addr();
        let drain_timeout = service.settings.drain_timeout;
        let announcements = Arc::new(AnnouncementHandler::new(Arc::clone(&service)));
        let router = routes::router(Arc::clone(&service), Arc::clone(&announcements), push_guard);
        let serving = server.serve(router, service.readiness.clone(), stop_token.clone(), drain_timeout);
        tokio::pin!(serving);

        let running_engines = tokio::select! {
            started = start_engines(
                engines, fallback, starter, &service, address, subscription.as_deref(),
            ) => Some(started?),
            // The service was stopped before the engines had warmed up.
            () = &mut serving => None,
        };
        drop(driver_output);
        if let Some(running_engines) = running_engines {
            let pulling = async {
                let Some(subscription) = &subscription else { return Ok(()) };
                let result = pull::run(subscription.as_ref(), announcements, stop_token.clone()).await;
                stop_token.cancel();
                result
            };
            let watching_engines = stop_when_engine_is_lost(&queue, &service, &stop_token);
            let ((), pull_result, engine_result) = tokio::join!(serving, pulling, watching_engines);
            stop_engines(&queue, running_engines).await;
            engine_result?;
            pull_result?;
        }
        tracing::info!("classify has stopped");
        Ok(())
    }
}

/// Runs `open_gpu` on a new thread and waits at most `timeout` for the result.
///
/// `open_gpu` may hang in a driver for ever. On a thread of tokio's pool, it would then keep the process from
/// ending.
async fn open_gpu_with_timeout<T: Send + 'static>(
    timeout: Duration,
    open_gpu: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let (sender, receiver) = oneshot::channel();
    let thread = thread::Builder::new().name("gpu".to_owned());
    // Sending fails if the service was stopped or the timeout has passed.
    thread.spawn(move || drop(sender.send(open_gpu())))?;
    let result = tokio::time::timeout(timeout, receiver).await.with_context(|| {
        let seconds = timeout.as_secs_f64();
        format!("no GPU was opened within {seconds} s (CLASSIFY_WARM_UP_TIMEOUT)")
    })?;
    result.context("the thread that opens the GPU died")
}

/// Creates the engines of `plan`.
///
/// On the CPU, this function also loads the network. An engine on a GPU loads the network when it warms up.
fn load_engines(
    plan: EnginePlan,
    precision: Precision,
    max_batch: usize,
) -> anyhow::Result<Vec<Box<dyn Infer>>> {
    let backend = plan.backend;
    if backend.is_gpu() {
        let new_engine = || Box::new(gpu::GpuEngine::new(backend, precision, max_batch)) as Box<dyn Infer>;
        return Ok((0..plan.engine_count.get()).map(|_| new_engine()).collect());
    }
    let engines = NativeEngine::load_all(plan)?;
    Ok(engines.into_iter().map(|engine| Box::new(engine) as Box<dyn Infer>).collect())
}

/// Waits until an engine is lost, then stops the service.
///
/// The driver of a lost engine's device is in an unknown state, so the process must end and be started again.
///
/// # Errors
/// Returns an error when an engine is lost. Returns `Ok` when `stop_token` is cancelled first.
async fn stop_when_engine_is_lost(
    queue: &InferenceQueue,
    service: &Service,
    stop_token: &CancellationToken,
) -> anyhow::Result<()> {
    let reason = tokio::select! {
        reason = queue.wait_until_lost() => reason,
        () = stop_token.cancelled() => return Ok(()),
    };
    service.readiness.set_draining();
    stop_token.cancel();
    anyhow::bail!("an engine is lost: {reason}")
}

/// Loads and warms up the engines. Returns them and their number.
async fn load_and_start(
    load: EngineLoader,
    starter: EngineStarter,
) -> anyhow::Result<(RunningEngines, usize)> {
    let engines = tokio::task::spawn_blocking(load).await.context("the network cannot be loaded")??;
    let engine_count = engines.len();
    Ok((starter.start(engines).await?, engine_count))
}

/// Loads and warms up every engine, then reports the service as ready.
///
/// If `engines` do not warm up, `fallback` takes their place.
async fn start_engines(
    engines: EngineSource,
    fallback: Option<EngineSource>,
    starter: EngineStarter,
    service: &Service,
    address: SocketAddr,
    subscription: Option<&dyn Subscription>,
) -> anyhow::Result<RunningEngines> {
    let EngineSource { mut placement, load } = engines;
    let (running_engines, engine_count) = match (load_and_start(load, starter.clone()).await, fallback) {
        (Ok(started), _) => started,
        (Err(error), None) => return Err(error),
        (Err(error), Some(fallback)) => {
            gpu::warn_of_fallback(&error_chain(error.as_ref()));
            placement = fallback.placement;
            let backend = placement.backend;
            service.backend.send_replace(backend);
            let starter = starter.with_backend(backend.name(), service.settings.max_batch_on(backend));
            load_and_start(fallback.load, starter).await?
        }
    };

    let Placement { backend, precision, adapter } = placement;
    if let Some(max_batch) = spec::MAX_BATCH {
        tracing::info!(max_batch, model = spec::NAME, "the network accepts no larger batch");
    }
    let EnginePlan { thread_count, isa, .. } = service.settings.engine_plan(backend);
    let isa = backend.kernel_isa(isa).map(Isa::name);
    let (backend, precision) = (backend.name(), precision.name());
    let model = service.records.model();
    if let Some(Adapter { name, driver, api, .. }) = adapter.clone() {
        gauge!("classify_gpu_info", "adapter" => name, "driver" => driver, "api" => api, "precision" => precision)
            .set(1.0);
    }
    gauge!("classify_build_info", "model" => model.name().to_owned(), "backend" => backend, "version" => VERSION).set(1.0);
    service.readiness.set_ready(json!({
        "service": "classify",
        "version": VERSION,
        "model": model.name(),
        "model_sha256": model.sha256(),
        "license": spec::LICENSE,
        "backend": backend,
        "adapter": adapter,
        "precision": precision,
        "isa": isa,
        "engines": engine_count,
        "threads": thread_count,
        "subscription": subscription.map(Subscription::name),
    }));
    tracing::info!(
        %address,
        model = model.name(),
        model_sha256 = model.sha256(),
        backend,
        adapter = adapter.map(tracing::field::display),
        precision,
        isa,
        engines = engine_count,
        threads = thread_count,
        version = VERSION,
        subscription = subscription.map(Subscription::name),
        "classify is ready"
    );
    Ok(running_engines)
}

/// Closes the queue and waits until the engines have ended.
///
/// The server must have stopped before, so that every request has been answered or aborted. Each engine is
/// then idle or runs its last batch.
async fn stop_engines(queue: &InferenceQueue, running_engines: RunningEngines) {
    queue.close();
    if tokio::time::timeout(LAST_BATCH_TIMEOUT, running_engines.wait_until_ended()).await.is_err() {
        tracing::warn!("an engine did not finish its last batch in time; the engine's thread is abandoned");
    }
}

#[cfg(test)]
mod tests;
