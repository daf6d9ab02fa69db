//! Tests of deliveries that a crash interrupts. Aborting the pusher stands for the crash: no outcome is stored.

use super::*;
use crate::topic::sqlite::store::ClaimRequest;

/// Waits until the end of the process would count as no failure of the only message.
async fn wait_until_pardoned(topic: &SqliteTopic) {
    let is_alone = |connection: &rusqlite::Connection| {
        connection.query_row("SELECT delivery = 2 FROM messages", [], |row| row.get::<_, bool>(0))
    };
    wait_until(|| async { !topic.store.run_in_transaction(is_alone).await.unwrap() }).await;
}

/// Ends the pusher and closes the topic, as a crash does.
async fn crash(topic: Arc<SqliteTopic>, (_, running): RunningPusher) {
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    drop(topic);
}

async fn start_receiver_that_never_responds() -> Receiver {
    Receiver::start(|_| Response::Never).await
}

#[tokio::test]
async fn interrupted_messages_are_delivered_one_at_a_time_after_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    for text in ["a", "b", "c", "d"] {
        publish(&topic, text).await;
    }
    let mut unresponsive = start_receiver_that_never_responds().await;
    let policy = RetryPolicy { max_outstanding: 2, ..policy() };
    let pusher = start_pusher(&topic, &unresponsive.url(), policy.clone());
    unresponsive.next_delivery().await;
    unresponsive.next_delivery().await;
    crash(topic, pusher).await;

    let topic = open_topic(&folder).await;
    assert_eq!(topic.store.stats().await.unwrap(), TopicStats { pending: 4, dead: 0 });
    let mut gated = GatedReceiver::start().await;
    let pusher = start_pusher(&topic, &gated.url(), policy);
    let (first, second) = (gated.next().await, gated.next().await);
    let names = BTreeSet::from([first.name.as_str(), second.name.as_str()]);
    assert_eq!(names, BTreeSet::from(["c", "d"]), "the messages that are not suspects go first");
    publish(&topic, "e").await;
    for arrival in [first, second] {
        arrival.response.send(StatusCode::OK).unwrap();
    }
    for expected in [("a", Some(2), 1), ("b", Some(2), 1), ("e", Some(1), 1)] {
        let arrival = gated.next().await;
        assert_eq!((arrival.name.as_str(), arrival.attempt, arrival.concurrent), expected);
        arrival.response.send(StatusCode::OK).unwrap();
    }
    wait_for_stats(&topic, TopicStats::default()).await;
    stop_pusher(pusher).await;
    assert_eq!(publish(&topic, "f").await, 6, "ids are not reused");
}

#[tokio::test]
async fn innocent_messages_survive_26_crashes() {
    let folder = tempfile::tempdir().unwrap();
    let records = Arc::new(Records::default());
    let policy = RetryPolicy { max_attempts: 5, max_outstanding: 16, ..policy() };
    let topic = open_topic(&folder).await;
    for number in 0..16 {
        publish(&topic, &number.to_string()).await;
    }
    drop(topic);
    for _ in 0..26 {
        let topic = open_topic(&folder).await;
        let mut unresponsive = start_receiver_that_never_responds().await;
        let pusher = start_pusher_with(&topic, &unresponsive.url(), policy.clone(), records.clone());
        unresponsive.next_delivery().await;
        crash(topic, pusher).await;
    }
    let topic = open_topic(&folder).await;
    let receiver = Receiver::start(always_ok).await;
    let pusher = start_pusher_with(&topic, &receiver.url(), policy, records.clone());
    wait_for_stats(&topic, TopicStats::default()).await;
    stop_pusher(pusher).await;
    assert_eq!(records.letters(), []);
}

#[tokio::test]
async fn message_that_crashes_every_process_becomes_a_dead_letter_and_the_others_are_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let records = Arc::new(Records::default());
    let policy = RetryPolicy { max_attempts: 3, ..policy() };
    let topic = open_topic(&folder).await;
    for text in ["poison", "a", "b"] {
        publish(&topic, text).await;
    }
    drop(topic);
    let mut crash_count = 0;
    let topic = loop {
        let topic = open_topic(&folder).await;
        publish(&topic, &format!("new {crash_count}")).await;
        let mut gated = GatedReceiver::start().await;
        let pusher = start_pusher_with(&topic, &gated.url(), policy.clone(), records.clone());
        let is_buried = loop {
            tokio::select! {
                arrival = gated.next() => {
                    if arrival.name == "poison" {
                        break false;
                    }
                    arrival.response.send(StatusCode::OK).unwrap();
                }
                () = wait_until(|| async { !records.letters().is_empty() }) => break true,
            }
        };
        if is_buried {
            wait_for_stats(&topic, TopicStats { pending: 0, dead: 1 }).await;
            stop_pusher(pusher).await;
            break topic;
        }
        crash_count += 1;
        crash(topic, pusher).await;
    };
    // The first crash does not count, because other messages were delivered at the same time.
    assert_eq!(crash_count, 4);
    let letters = records.letters();
    assert_eq!((letters.len(), &letters[0].message), (1, &message("poison")));
    assert_eq!(letters[0].failures, 3);
    assert_eq!(topic.store.dead_letter(1).await.unwrap().1, "the process ended during the delivery");
}

#[tokio::test]
async fn refusal_clears_a_suspect() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let id = publish(&topic, "a").await;
    let mut unresponsive = start_receiver_that_never_responds().await;
    let pusher = start_pusher(&topic, &unresponsive.url(), policy());
    unresponsive.next_delivery().await;
    crash(topic, pusher).await;

    let topic = open_topic(&folder).await;
    let mut receiver = Receiver::start(always_503).await;
    let hour = Duration::from_secs(3600);
    let long_backoff = RetryPolicy { min_backoff: hour, max_backoff: hour, ..policy() };
    let pusher = start_pusher(&topic, &receiver.url(), long_backoff);
    receiver.next_delivery().await;
    stop_pusher(pusher).await;
    let state = topic.store.state(id).await.unwrap();
    assert_eq!((state.suspect, state.failures, state.attempts), (false, 0, 2));
}

#[tokio::test]
async fn end_of_the_process_after_a_requested_stop_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let id = publish(&topic, "a").await;
    drop(topic);
    for attempt in 1..=3 {
        let topic = open_topic(&folder).await;
        let mut gated = GatedReceiver::start().await;
        let pusher = start_pusher(&topic, &gated.url(), policy());
        let arrival = gated.next().await;
        assert_eq!(arrival.attempt, Some(attempt));
        pusher.0.cancel();
        wait_until_pardoned(&topic).await;
        crash(topic, pusher).await;
    }
    assert_eq!(open_topic(&folder).await.store.state(id).await.unwrap().failures, 0);
}

#[tokio::test]
async fn end_of_the_process_after_a_requested_shutdown_does_not_count_although_the_pusher_was_not_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let topic = open_topic(&folder).await;
    let id = publish(&topic, "a").await;
    drop(topic);
    // The first delivery makes a suspect of the message, which is then delivered alone.
    for attempt in 1..=3 {
        let topic = open_topic(&folder).await;
        let mut gated = GatedReceiver::start().await;
        let shutdown = CancellationToken::new();
        let pusher = topic.pusher(&gated.url(), policy(), Arc::<Records>::default());
        let stop = CancellationToken::new();
        let running = tokio::spawn(pusher.with_shutdown(shutdown.clone()).run(stop.clone()));
        assert_eq!(gated.next().await.attempt, Some(attempt));
        shutdown.cancel();
        wait_until_pardoned(&topic).await;
        crash(topic, (stop, running)).await;
    }
    assert_eq!(open_topic(&folder).await.store.state(id).await.unwrap().failures, 0);
}

#[tokio::test]
async fn interrupted_delivery_of_a_lone_suspect_counts_unless_it_was_claimed_during_a_shutdown() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("topic.sqlite"), message_key).await.unwrap();
    let id = store.insert(message("a"), None, 1).await.unwrap();
    let claim = async |is_shutting_down| {
        let request = ClaimRequest {
            now_ms: 1,
            latest_valid_due_ms: 1,
            started_ms: 1,
            leased_ids: HashSet::new(),
            limit: 1,
            is_shutting_down,
        };
        let claim = store.claim(request).await.unwrap();
        assert_eq!(claim.messages.len(), 1);
        assert_eq!(store.recover_interrupted(1, |_, _| 0).await.unwrap(), 1);
        (claim.is_alone, store.state(id).await.unwrap().failures)
    };
    assert_eq!(claim(false).await, (false, 0));
    assert_eq!(claim(true).await, (true, 0));
    assert_eq!(claim(false).await, (true, 1));
}
