//! Tests of refusals, failures and dead letters.

use super::*;

fn always_500(_: usize) -> Response {
    Response::Status(StatusCode::INTERNAL_SERVER_ERROR)
}

#[tokio::test]
async fn message_that_is_refused_100_times_is_delivered_once_the_subscriber_accepts_it() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let responder: Responder = |number| {
        const REFUSALS: [u16; 12] = [503, 429, 502, 504, 301, 203, 400, 403, 404, 408, 413, 422];
        match number {
            100.. => always_ok(number),
            _ => Response::Status(StatusCode::from_u16(REFUSALS[number % REFUSALS.len()]).unwrap()),
        }
    };
    let mut receiver = Receiver::start(responder).await;
    let records = Arc::new(Records::default());
    let pusher = start_pusher_with(
        &topic,
        &receiver.url(),
        RetryPolicy { max_attempts: 1, ..policy() },
        records.clone(),
    );
    publish(&topic, "a").await;
    for attempt in 1..=101 {
        assert_eq!(receiver.next_delivery().await.delivery_attempt, Some(attempt));
    }
    wait_for_stats(&topic, TopicStats::default()).await;
    stop_pusher(pusher).await;
    assert_eq!(records.letters(), []);
}

#[tokio::test]
async fn message_becomes_a_recorded_dead_letter_after_max_failures() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    // Refusals between the failures do not count.
    let responder: Responder = |number| if number % 2 == 0 { always_500(number) } else { always_503(number) };
    let mut receiver = Receiver::start(responder).await;
    let records = Arc::new(Records::default());
    let pusher = start_pusher_with(
        &topic,
        &receiver.url(),
        RetryPolicy { max_attempts: 3, ..policy() },
        records.clone(),
    );
    let id = publish(&topic, "a").await;
    for _ in 0..5 {
        receiver.next_delivery().await;
    }
    wait_for_stats(&topic, TopicStats { pending: 0, dead: 1 }).await;
    stop_pusher(pusher).await;
    assert!(receiver.deliveries.try_recv().is_err(), "the dead letter was delivered again");
    let reason = "status 500".to_owned();
    assert_eq!(topic.store.dead_letter(id).await, Some((5, reason.clone())));
    let letter = DeadLetter { message: message("a"), message_id: id.to_string(), failures: 3, reason };
    assert_eq!(records.letters(), [letter]);
}

#[tokio::test]
async fn message_stays_until_its_failure_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let mut receiver = Receiver::start(always_500).await;
    let records = Arc::new(Records { errors_left: AtomicUsize::new(3), ..Records::default() });
    let once = RetryPolicy { max_attempts: 1, ..policy() };
    let pusher = start_pusher_with(&topic, &receiver.url(), once, records.clone());
    publish(&topic, "a").await;
    wait_for_stats(&topic, TopicStats { pending: 0, dead: 1 }).await;
    stop_pusher(pusher).await;
    receiver.next_delivery().await;
    assert!(receiver.deliveries.try_recv().is_err(), "a message that has failed too often is not pushed");
    assert_eq!(records.letters().len(), 1);
    assert_eq!(records.errors_left.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn pushes_that_panic_release_their_leases() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let responder: Responder = |number| if number < 3 { always_500(number) } else { always_ok(number) };
    let receiver = Receiver::start(responder).await;
    let records = Arc::new(Records { panics_left: AtomicUsize::new(9), ..Records::default() });
    let policy = RetryPolicy { max_attempts: 1, max_outstanding: 3, ..policy() };
    let pusher = start_pusher_with(&topic, &receiver.url(), policy, records.clone());
    for text in ["a", "b", "c"] {
        publish(&topic, text).await;
    }
    // Each of the three leases panics several times.
    wait_until(|| async { records.panics_left.load(Ordering::SeqCst) < 6 }).await;
    publish(&topic, "d").await;
    wait_for_stats(&topic, TopicStats { pending: 0, dead: 3 }).await;
    stop_pusher(pusher).await;
    assert_eq!(records.letters().len(), 3);
}

#[tokio::test]
async fn first_acknowledgement_after_an_outage_makes_refused_messages_due_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let responder: Responder = |number| if number < 3 { always_503(number) } else { always_ok(number) };
    let mut receiver = Receiver::start(responder).await;
    for text in ["a", "b", "c"] {
        publish(&topic, text).await;
    }
    // After this many attempts, the pause is the maximum.
    let set_attempts =
        |connection: &rusqlite::Connection| connection.execute("UPDATE messages SET attempts = 40", []);
    topic.store.run_in_transaction(set_attempts).await.unwrap();
    let policy = RetryPolicy {
        min_backoff: Duration::from_micros(1),
        max_backoff: Duration::from_secs(1800),
        max_outstanding: 1,
        ..policy()
    };
    let pusher = start_pusher(&topic, &receiver.url(), policy);
    for text in ["a", "b", "c"] {
        assert_eq!(receiver.next_delivery().await.data, text);
    }
    publish(&topic, "d").await;
    for text in ["d", "a", "b", "c"] {
        assert_eq!(receiver.next_delivery().await.data, text);
    }
    wait_for_stats(&topic, TopicStats::default()).await;
    stop_pusher(pusher).await;
}
