//! Tests of the start with fake engines, and of a driver that hangs.

use std::{net::Ipv4Addr, sync::mpsc};

use platform::{bucket::InMemoryBucket, telemetry::CapturedLog};

use super::*;
use crate::{engine::InferError, pixels::Crop};

/// An engine that gives the same logit for every class, or fails to warm up.
struct FakeEngine {
    warm_up_error: Option<&'static str>,
}

impl Infer for FakeEngine {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        Ok(vec![vec![1.0; spec::LABELS.len()]; batch.len()])
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        self.warm_up_error.map_or(Ok(()), |error| Err(InferError(error.into())))
    }
}

/// Returns two engines, of which the second fails to warm up if `warm_up_error` is set.
fn fake_engines(placement: Placement, warm_up_error: Option<&'static str>) -> EngineSource {
    let engines = [None, warm_up_error].map(|warm_up_error| FakeEngine { warm_up_error });
    let engines = engines.into_iter().map(|engine| Box::new(engine) as Box<dyn Infer>).collect();
    EngineSource { placement, load: Box::new(move || Ok(engines)) }
}

async fn bind(engines: EngineSource, fallback: Option<EngineSource>) -> Application {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let parts = Parts::new(Arc::new(InMemoryBucket::default()));
    Application::bind(address.into(), Settings::default(), HEAD, parts, engines, fallback).await.unwrap()
}

/// Returns a placement on a GPU, or on any other backend than the default one.
fn placement_on_another_backend() -> Placement {
    let other = Backend::all().iter().copied().find(|&backend| backend != Backend::default());
    Placement { precision: Precision::F16, ..Placement::cpu(other.unwrap_or_default()) }
}

#[tokio::test]
async fn engines_on_the_cpu_replace_those_on_a_gpu_that_do_not_warm_up() {
    let log = CapturedLog::start("warn");
    let gpu = fake_engines(placement_on_another_backend(), Some("the GPU is broken"));
    let cpu = fake_engines(Placement::cpu(Backend::default()), None);
    let application = bind(gpu, Some(cpu)).await;
    let (readiness, service) = (application.readiness(), Arc::clone(&application.service));
    let stop_token = CancellationToken::new();
    let running = tokio::spawn(application.run(stop_token.clone()));
    let ready = readiness.wait_ready().await.unwrap();
    assert_eq!(ready["backend"], Backend::default().name());
    assert_eq!(ready["precision"], "f32");
    assert_eq!(ready["engines"], 2);
    assert_eq!(*service.backend.borrow(), Backend::default());
    stop_token.cancel();
    running.await.unwrap().unwrap();
    let warnings = log.take_lines();
    let [warning] = warnings.as_slice() else { panic!("{} warnings: {warnings:?}", warnings.len()) };
    assert!(warning.contains("the network runs on the CPU"), "{warning}");
    assert!(warning.contains("the GPU is broken"), "{warning}");
}

#[tokio::test]
async fn engines_that_do_not_warm_up_end_a_service_without_a_fallback() {
    let gpu = fake_engines(placement_on_another_backend(), Some("the GPU is broken"));
    let error = bind(gpu, None).await.run(CancellationToken::new()).await.unwrap_err();
    assert_eq!(format!("{error:#}"), "an engine did not warm up: the GPU is broken");
}

#[tokio::test]
async fn opening_a_gpu_times_out_if_the_driver_hangs() {
    let (end_of_test, hang) = mpsc::channel::<()>();
    let error = open_gpu_with_timeout(Duration::from_millis(50), move || hang.recv()).await.unwrap_err();
    assert!(error.to_string().contains("within 0.05 s (CLASSIFY_WARM_UP_TIMEOUT)"), "{error}");
    drop(end_of_test);
    assert_eq!(open_gpu_with_timeout(Duration::from_secs(60), || 1).await.unwrap(), 1);
}
