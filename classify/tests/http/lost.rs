//! A GPU that is lost ends the service, and nobody is left waiting or told something wrong.

use classify::{
    Settings,
    engine::{Infer, InferError, Pending},
    network::CLASSES,
    pixels::Crop,
};

use crate::rig::{Rig, png, problem};

/// Runs once, to warm up.
struct LostAfterStart {
    started: bool,
    hangs: bool,
}

impl Infer for LostAfterStart {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        self.started = true;
        Ok(vec![vec![0.0; CLASSES]; batch.len()])
    }

    fn begin(&mut self, _batch: &[Crop]) -> Result<Pending, InferError> {
        assert!(self.started, "not warm");
        match self.hangs {
            true => Ok(Box::pin(std::future::pending())),
            false => Err(InferError("the device was reset".into())),
        }
    }

    fn overlaps(&self) -> bool {
        true
    }
}

async fn lost(hangs: bool) -> (u16, String, String) {
    let mut settings = Settings::default();
    settings.gpu.timeout = std::time::Duration::from_millis(100);
    let engine: Box<dyn Infer> = Box::new(LostAfterStart { started: false, hangs });
    let mut rig = Rig::with(settings, vec![engine]).await;
    let (status, kind) = problem(rig.image(png()).send().await).await;
    let ended = (&mut rig.running).await.unwrap();
    assert!(!rig.readiness.is_ready() && rig.readiness.is_draining());
    (status, kind, ended.unwrap_err().to_string())
}

#[tokio::test]
async fn a_device_that_fails_ends_the_service_with_an_error() {
    let (status, kind, error) = lost(false).await;
    assert_eq!((status, kind.as_str()), (503, "engine_lost"), "the request may be sent again");
    assert_eq!(error, "the GPU is lost: the device was reset");
}

#[tokio::test]
async fn a_device_that_hangs_ends_the_service_with_an_error() {
    let (status, kind, error) = lost(true).await;
    assert_eq!((status, kind.as_str()), (503, "engine_lost"), "nobody waits for ever");
    assert_eq!(error, "the GPU is lost: a batch has run for more than 0.1 s");
}

#[tokio::test]
async fn an_event_comes_back_when_the_device_is_lost() {
    let engine: Box<dyn Infer> = Box::new(LostAfterStart { started: false, hangs: false });
    let rig = Rig::with(Settings::default(), vec![engine]).await;
    rig.store("id/image.jpg", png()).await;
    let answer = rig.push_event("id/image.jpg").send().await.unwrap();
    assert_eq!(answer.status(), 503, "refused, so that it is delivered again");
}
