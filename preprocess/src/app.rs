//! Builds the service, serves requests and shuts down.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use contract::ModelKey;
use platform::{
    bucket::SharedBucket,
    cpu::{CpuLimits, CpuPool},
    http::{BodyReceiver, Readiness, Server, ServerConfig},
    memory_budget::{MemoryBudget, MemoryBudgetLimits},
    topic::SharedTopic,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Settings,
    image, routes,
    upload_service::{PublishQueueLimits, UploadService},
};

/// Version of the service, which the responses of `/ready` and `/` state.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The service, bound to its port but not serving yet.
pub struct Application {
    server: Server,
    settings: Settings,
    upload_service: Arc<UploadService>,
    /// Receives uploads. A request holds the memory of its body until its images are processed.
    bodies: BodyReceiver,
    readiness: Readiness,
}

impl Application {
    /// Builds the service with an open bucket and topic, and binds it to the address of
    /// `server`, which may be an address alone.
    ///
    /// Port 0 binds to a free port. Without a `topic`, images are stored but not announced. `current_model` is the
    /// model that classifies the images. If it is `None`, the service returns the predictions of whichever model
    /// classified an image first.
    ///
    /// # Errors
    /// Returns an error when the address cannot be bound or the threads cannot be started.
    pub async fn assemble(
        server: impl Into<ServerConfig>,
        settings: Settings,
        bucket: SharedBucket,
        topic: Option<SharedTopic>,
        current_model: Option<ModelKey>,
    ) -> anyhow::Result<Self> {
        let limits = CpuLimits {
            threads: settings.preprocess_threads,
            max_jobs: settings.preprocess_queue_items.get(),
            max_weight: settings.preprocess_queue_pixels,
        };
        let cpu = CpuPool::new("preprocess", limits).context("the CPU threads cannot be started")?;
        let server = Server::bind("preprocess", server).await?;
        let new_memory_budget = |purpose, max_bytes, max_reservation_bytes| {
            let limits = MemoryBudgetLimits {
                max_bytes,
                max_reservation_bytes,
                max_waiting: settings.preprocess_queue_items.get(),
                wait_timeout: settings.preprocess_queue_timeout,
            };
            MemoryBudget::new("preprocess", purpose, &limits)
        };
        let shares = settings.memory_shares();
        let max_upload_bytes = BodyReceiver::max_reserved_bytes(settings.preprocess_max_body_bytes) as u64;
        let upload_memory = new_memory_budget("uploads", shares.upload_bytes, max_upload_bytes);
        let recipe = settings.recipe();
        let max_picture_bytes = recipe.limits.max_processing_bytes;
        let processing_memory = new_memory_budget("pictures", shares.processing_bytes, max_picture_bytes);
        let bodies = BodyReceiver::new(settings.body_limits(), upload_memory);
        let publish_queue = PublishQueueLimits {
            max_waiting: settings.preprocess_queue_items.get(),
            timeout: settings.preprocess_queue_timeout,
        };
        let upload_service =
            UploadService::new(recipe, cpu, processing_memory, bucket, topic, current_model, &publish_queue);
        Ok(Self {
            server,
            settings,
            upload_service: Arc::new(upload_service),
            bodies,
            readiness: Readiness::default(),
        })
    }

    /// Returns the address that the service is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Returns a handle that shows whether the service is ready.
    ///
    /// Call this method before [`Self::run`], which consumes the application.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Serves until `stop` is cancelled, then finishes the requests in progress within the drain timeout.
    pub async fn run(self, stop: CancellationToken) {
        let Self { server, settings, upload_service, bodies, readiness } = self;
        let address = server.local_addr();
        readiness.set_ready(json!({
            "service": "preprocess",
            "version": VERSION,
            "recipe": upload_service.recipe_text(),
            "jpeg_decoders": image::jpeg_decoder_names(),
        }));
        tracing::info!(
            %address,
            recipe = upload_service.recipe_text(),
            jpeg_decoders = image::jpeg_decoder_names().join(", "),
            "preprocess is ready"
        );
        let drain_timeout = settings.preprocess_drain_timeout;
        let router = routes::router(settings, upload_service, bodies, readiness.clone(), stop.clone());
        server.serve(router, readiness, stop, drain_timeout).await;
        tracing::info!("preprocess has stopped");
    }
}
