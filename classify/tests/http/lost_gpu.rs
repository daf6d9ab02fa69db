//! Tests of an engine whose GPU fails or hangs. Such an engine is lost: the service ends with an error, and
//! every request gets a response.

use classify::{
    Settings,
    engine::{Infer, InferError, PendingLogits},
    model::CLASSES,
    pixels::Crop,
};

use crate::rig::{Rig, encode_png, read_problem};

/// An engine that is lost at its first batch after the warm-up.
///
/// Because the engine has a device of its own, the service calls `infer` for the warm-up, and `submit` for
/// all other batches.
struct EngineLostAfterWarmUp {
    is_warm: bool,
    /// True if the batch after the warm-up hangs, false if it fails.
    hangs: bool,
}

impl Infer for EngineLostAfterWarmUp {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        self.is_warm = true;
        Ok(vec![vec![0.0; CLASSES]; batch.len()])
    }

    fn submit(&mut self, _batch: &[Crop]) -> Result<PendingLogits, InferError> {
        assert!(self.is_warm, "the engine was not warmed up");
        match self.hangs {
            true => Ok(Box::pin(std::future::pending())),
            false => Err(InferError("the device was reset".into())),
        }
    }

    fn has_own_device(&self) -> bool {
        true
    }
}

/// Starts a service, and sends a request whose batch hangs or fails, so that the engine is lost.
///
/// Returns the status and kind of the response, and the error with which the service ends.
async fn lose_engine(hangs: bool) -> (u16, String, String) {
    let mut settings = Settings::default();
    settings.gpu.batch_timeout = std::time::Duration::from_millis(100);
    let engine: Box<dyn Infer> = Box::new(EngineLostAfterWarmUp { is_warm: false, hangs });
    let mut rig = Rig::with_engines(settings, vec![engine]).await;
    let (status, kind) = read_problem(rig.post_image(encode_png()).send().await).await;
    let result = (&mut rig.task).await.unwrap();
    assert!(!rig.readiness.is_ready() && rig.readiness.is_draining());
    (status, kind, result.unwrap_err().to_string())
}

#[tokio::test]
async fn gpu_that_fails_gives_503_and_ends_the_service() {
    let (status, kind, error) = lose_engine(false).await;
    assert_eq!((status, kind.as_str()), (503, "engine_lost"), "the caller may send the request again");
    assert_eq!(error, "an engine is lost: the device was reset");
}

#[tokio::test]
async fn gpu_that_hangs_gives_503_and_ends_the_service() {
    let (status, kind, error) = lose_engine(true).await;
    assert_eq!((status, kind.as_str()), (503, "engine_lost"), "the request is not left without a response");
    assert_eq!(error, "an engine is lost: a batch has run for more than 0.1 s");
}

#[tokio::test]
async fn event_that_loses_the_engine_is_refused_with_503() {
    let engine: Box<dyn Infer> = Box::new(EngineLostAfterWarmUp { is_warm: false, hangs: false });
    let rig = Rig::with_engines(Settings::default(), vec![engine]).await;
    rig.store("id/image.jpg", encode_png()).await;
    let response = rig.push_event("id/image.jpg").send().await.unwrap();
    assert_eq!(response.status(), 503, "the event is refused, so that it is delivered again");
}
