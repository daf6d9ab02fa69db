//! More work than can be done, callers who leave, engines that fail, and the end of the service.

use std::{num::NonZeroUsize, time::Duration};

use classify::Settings;
use futures_util::future::{Either, select};

use crate::rig::{Gate, Rig, Verdict, answer, png};

fn tight() -> Settings {
    Settings { queue_items: NonZeroUsize::MIN, ..Settings::default() }
}

#[tokio::test]
async fn too_much_is_refused_at_once_and_what_was_let_in_is_answered() {
    let (engine, mut gate) = Gate::new(false);
    let rig = Rig::with(tight(), vec![engine]).await;
    let running = tokio::spawn(rig.image(png()).send());
    assert_eq!(gate.taken().await, 1);
    // One of these waits in the queue, the other finds it full.
    let (refused, waiting) =
        match select(tokio::spawn(rig.image(png()).send()), tokio::spawn(rig.image(png()).send())).await {
            Either::Left((first, other)) | Either::Right((first, other)) => (first.unwrap(), other),
        };
    assert_eq!(refused.as_ref().unwrap().headers()["retry-after"], "1");
    let (status, body) = answer(refused).await;
    assert_eq!((status, body["kind"].as_str()), (429, Some("overloaded")), "{body}");
    gate.release(Verdict::Espresso);
    gate.release(Verdict::Espresso);
    for request in [running, waiting] {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test]
async fn the_network_does_not_run_for_callers_who_were_given_up() {
    let (engine, mut gate) = Gate::new(false);
    let settings = Settings { request_timeout: Duration::from_secs(2), ..Settings::default() };
    let rig = Rig::with(settings, vec![engine]).await;
    let running = tokio::spawn(rig.image(png()).send());
    gate.taken().await;
    let waiting = rig.image(png()).send();
    assert_eq!(answer(waiting.await).await.0, 504);
    assert_eq!(running.await.unwrap().unwrap().status(), 504);
    // The engine comes back to a queue in which nobody waits any more, but the next one.
    gate.release(Verdict::Espresso);
    gate.release(Verdict::Espresso);
    assert_eq!(rig.image(png()).send().await.unwrap().status(), 200);
    assert_eq!(gate.taken().await, 1);
}

#[tokio::test]
async fn a_panic_is_a_503_and_the_engine_lives_on() {
    let (engine, gate) = Gate::new(false);
    let rig = Rig::with(Settings::default(), vec![engine]).await;
    gate.release(Verdict::Panic);
    let (status, body) = answer(rig.image(png()).send().await).await;
    assert_eq!((status, body["kind"].as_str()), (503, Some("engine_failed")), "{body}");
    assert!(
        !body.to_string().contains("the test wants it so"),
        "the panic is nobody's business outside: {body}"
    );
    gate.release(Verdict::Espresso);
    assert_eq!(rig.image(png()).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_answer_that_is_no_number_is_an_error() {
    let (engine, gate) = Gate::new(false);
    let rig = Rig::with(Settings::default(), vec![engine]).await;
    gate.release(Verdict::Nan);
    let (status, body) = answer(rig.image(png()).send().await).await;
    assert_eq!((status, body["kind"].as_str()), (500, Some("model_failure")), "{body}");
}

#[tokio::test]
async fn at_the_end_what_was_let_in_is_finished_and_nothing_new_begun() {
    let (engine, mut gate) = Gate::new(false);
    let mut rig = Rig::with(tight(), vec![engine]).await;
    let running = tokio::spawn(rig.image(png()).send());
    gate.taken().await;
    // One is refused; from then on the other one is in.
    let (refused, waiting) =
        match select(tokio::spawn(rig.image(png()).send()), tokio::spawn(rig.image(png()).send())).await {
            Either::Left((first, other)) | Either::Right((first, other)) => (first.unwrap(), other),
        };
    assert_eq!(refused.unwrap().status(), 429);
    rig.stop.cancel();
    gate.release(Verdict::Espresso);
    gate.release(Verdict::Espresso);
    for request in [running, waiting] {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    (&mut rig.running).await.unwrap().unwrap();
    assert!(rig.image(png()).send().await.is_err(), "nobody listens any more");
}
