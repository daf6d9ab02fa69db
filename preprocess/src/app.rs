//! Puts the parts together, serves, and stops in order.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use platform::{
    bucket::SharedBucket,
    cpu::{CpuLimits, CpuPool},
    http::{Readiness, Server},
    memory_budget::{MemoryBudget, MemoryBudgetLimits},
    topic::SharedTopic,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{config::Settings, image, ingest::Ingest, routes};

/// The version in the ready answer and the index.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The service, bound to its port; not serving yet.
pub struct Application {
    server: Server,
    settings: Settings,
    ingest: Arc<Ingest>,
    /// For uploads while they arrive and until they are pictures.
    uploads: MemoryBudget,
    readiness: Readiness,
}

impl Application {
    /// The service on parts that exist already. Port 0 takes a free one; without a `topic` images
    /// are stored but not announced.
    ///
    /// # Errors
    /// When the port cannot be had or threads cannot be started.
    pub async fn assemble(
        address: SocketAddr,
        settings: Settings,
        bucket: SharedBucket,
        topic: Option<SharedTopic>,
    ) -> anyhow::Result<Self> {
        let limits = CpuLimits {
            threads: settings.threads,
            max_jobs: settings.queue_items.get(),
            max_weight: settings.queue_pixels,
        };
        let cpu = CpuPool::new("preprocess", limits).context("the CPU threads cannot be started")?;
        let server = Server::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let memory = |purpose, bytes| {
            let limits = MemoryBudgetLimits {
                bytes,
                max_waiting: settings.queue_items.get(),
                wait_timeout: settings.queue_timeout,
            };
            MemoryBudget::new("preprocess", purpose, &limits)
        };
        let shares = settings.memory();
        let (uploads, pictures) = (memory("uploads", shares.uploads), memory("pictures", shares.pictures));
        let ingest = Arc::new(Ingest::new(settings.recipe(), cpu, pictures, bucket, topic));
        Ok(Self { server, settings, ingest, uploads, readiness: Readiness::default() })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Whether it takes work; tells so also while [`Self::run`] runs.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Serves until `stop` is cancelled, then finishes what is under way, for at most the drain
    /// timeout.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { server, settings, ingest, uploads, readiness } = self;
        let address = server.local_addr();
        readiness.set_ready(json!({
            "service": "preprocess",
            "version": VERSION,
            "recipe": ingest.recipe_text(),
            "jpeg_decoders": image::jpeg_decoders(),
        }));
        tracing::info!(
            %address,
            recipe = ingest.recipe_text(),
            jpeg_decoders = image::jpeg_decoders().join(", "),
            "preprocess is ready"
        );
        let drain = settings.drain_timeout;
        let router = routes::router(settings, ingest, uploads, readiness.clone(), stop.clone());
        server.serve(router, readiness, stop, drain).await.context("the listener failed")?;
        tracing::info!("preprocess has stopped");
        Ok(())
    }
}
