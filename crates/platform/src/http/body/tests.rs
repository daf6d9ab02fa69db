//! Tests of the limits on bodies, with a paused clock and bodies that the test sends piece by piece.

use axum::{body::Body, http::header::CONTENT_TYPE};
use futures_util::stream;
use proptest::prelude::*;
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};

use super::*;
use crate::memory_budget::MemoryBudgetLimits;

const MIB: usize = 1 << 20;
const MAX_BYTES: usize = 20 * MIB;
const LIMITS: BodyLimits = BodyLimits {
    max_bytes: MAX_BYTES,
    timeout: Duration::from_secs(30),
    min_rate: 1024,
    grace: Duration::from_secs(10),
};

/// Creates a receiver and its budget of 40 MiB.
fn new_receiver(limits: BodyLimits) -> (BodyReceiver, MemoryBudget) {
    let memory = MemoryBudget::new(
        "test",
        "tests",
        &MemoryBudgetLimits {
            max_bytes: 40 * MIB as u64,
            max_reservation_bytes: BodyReceiver::max_reserved_bytes(limits.max_bytes) as u64,
            max_waiting: 200,
            wait_timeout: Duration::from_secs(10),
        },
    );
    (BodyReceiver::new(limits, memory.clone()), memory)
}

/// Sends the pieces of a body. Dropping it ends the body.
type Sender = mpsc::UnboundedSender<Bytes>;

/// Returns a request whose body the test sends. Without `announced_length`, the body is chunked.
fn new_request(content_type: &str, announced_length: Option<usize>) -> (Sender, Request) {
    let (sender, receiver) = mpsc::unbounded_channel::<Bytes>();
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(piece), receiver))
    });
    let mut request = Request::builder().header(CONTENT_TYPE, content_type);
    if let Some(length) = announced_length {
        request = request.header(CONTENT_LENGTH, length);
    }
    (sender, request.body(Body::from_stream(pieces)).unwrap())
}

/// Starts to receive a raw body.
fn start(
    receiver: &BodyReceiver,
    announced_length: Option<usize>,
) -> (Sender, JoinHandle<Result<ReservedBytes, BodyError>>) {
    let (sender, request) = new_request("image/jpeg", announced_length);
    let receiver = receiver.clone();
    (sender, tokio::spawn(async move { receiver.receive(request).await }))
}

/// Sends a piece of `length` bytes every `interval` until the receiver gives up. Returns the number of bytes.
async fn send_slowly(sender: Sender, length: usize, interval: Duration) -> usize {
    let mut sent = 0;
    while sender.send(vec![7; length].into()).is_ok() {
        sent += length;
        sleep(interval).await;
    }
    sent
}

/// Lets the other tasks run until none of them can continue.
async fn let_tasks_run() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn body_of_one_byte_per_second_is_cut_off_after_the_grace_time() {
    let (receiver, memory) = new_receiver(LIMITS);
    let (sender, receiving) = start(&receiver, Some(MAX_BYTES));
    let sent = send_slowly(sender, 1, Duration::from_secs(1)).await;
    assert!((9..=12).contains(&sent), "{sent} bytes");
    assert!(matches!(receiving.await.unwrap(), Err(BodyError::TooSlow { .. })));
    assert_eq!(memory.reserved_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn silence_after_most_of_the_body_is_cut_off_too() {
    let (receiver, _) = new_receiver(LIMITS);
    let (sender, receiving) = start(&receiver, Some(MAX_BYTES));
    sender.send(vec![7; MAX_BYTES - 1].into()).unwrap();
    sleep(Duration::from_millis(9_900)).await;
    assert!(!receiving.is_finished(), "the client may be silent for the grace time");
    assert!(matches!(receiving.await.unwrap(), Err(BodyError::TooSlow { .. })));
    drop(sender);
}

#[tokio::test(start_paused = true)]
async fn body_at_the_minimum_rate_with_short_pauses_is_received() {
    let (receiver, _) = new_receiver(LIMITS);
    let (sender, receiving) = start(&receiver, None);
    for _ in 0..4 {
        sender.send(vec![7; 5 * 1024].into()).unwrap();
        sleep(Duration::from_secs(5)).await;
    }
    drop(sender);
    assert_eq!(receiving.await.unwrap().unwrap().bytes.len(), 20 * 1024);
}

#[tokio::test(start_paused = true)]
async fn body_above_the_minimum_rate_is_cut_off_after_the_upload_timeout() {
    for min_rate in [0, 1024] {
        let (receiver, _) = new_receiver(BodyLimits { min_rate, ..LIMITS });
        let (sender, receiving) = start(&receiver, Some(MAX_BYTES));
        let sent = send_slowly(sender, 2048, Duration::from_secs(1)).await;
        assert!((29 * 2048..=32 * 2048).contains(&sent), "{sent} bytes");
        assert!(matches!(receiving.await.unwrap(), Err(BodyError::TimedOut { .. })), "{min_rate}");
    }
}

#[tokio::test(start_paused = true)]
async fn time_that_the_service_waits_for_memory_does_not_count() {
    let limits = BodyLimits { timeout: Duration::from_secs(2), grace: Duration::from_secs(1), ..LIMITS };
    let (receiver, memory) = new_receiver(limits);
    let (sender, receiving) = start(&receiver, Some(MAX_BYTES));
    let_tasks_run().await;
    let others: Vec<_> = [20, 14].map(|mib| memory.reserve((mib * MIB) as u64)).into();
    let others = futures_util::future::join_all(others).await;
    sender.send(vec![7; 10 * MIB].into()).unwrap();
    sleep(Duration::from_secs(5)).await;
    assert!(!receiving.is_finished(), "the body waits for memory");
    drop(others);
    sender.send(vec![7; 10 * MIB].into()).unwrap();
    drop(sender);
    assert_eq!(receiving.await.unwrap().unwrap().bytes.len(), MAX_BYTES);
}

#[tokio::test(start_paused = true)]
async fn reservation_follows_the_bytes_that_have_arrived() {
    let (receiver, memory) = new_receiver(LIMITS);
    let (sender, receiving) = start(&receiver, Some(MAX_BYTES));
    let_tasks_run().await;
    assert_eq!(memory.reserved_bytes(), 64 << 10);
    let mut sent = 0;
    for length in [1, 100_000, 1_000_000, 3_000_000] {
        sender.send(vec![7; length].into()).unwrap();
        sent += length as u64;
        let_tasks_run().await;
        let reserved = memory.reserved_bytes();
        assert!((sent..=sent * 2 + (64 << 10)).contains(&reserved), "{reserved} bytes for {sent}");
        assert!(reserved <= sent + MIB as u64, "{reserved} bytes for {sent}");
    }
    receiving.abort();
    let_tasks_run().await;
    assert_eq!(memory.reserved_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn slow_clients_do_not_keep_others_from_uploading() {
    let (receiver, memory) = new_receiver(LIMITS);
    let slow: Vec<_> = (0..80).map(|_| start(&receiver, Some(MAX_BYTES))).collect();
    for (sender, _) in &slow {
        sender.send(Bytes::from_static(b"x")).unwrap();
    }
    let_tasks_run().await;
    assert!(memory.reserved_bytes() <= 80 * (64 << 10), "{}", memory.reserved_bytes());
    for length in [1, 300_000, MAX_BYTES, MAX_BYTES] {
        let (sender, receiving) = start(&receiver, Some(length));
        sender.send(vec![7; length].into()).unwrap();
        drop(sender);
        assert_eq!(receiving.await.unwrap().unwrap().bytes.len(), length);
    }
    assert!(
        slow.iter().all(|(_, receiving)| !receiving.is_finished()),
        "no time has passed for the slow ones"
    );
}

#[tokio::test(start_paused = true)]
async fn unfinished_bodies_stay_within_the_budget_and_honest_ones_finish() {
    let (receiver, memory) = new_receiver(LIMITS);
    let piece = Bytes::from(vec![7; MIB]);
    let mut unfinished = Vec::new();
    for _ in 0..150 {
        let (sender, receiving) = start(&receiver, Some(MAX_BYTES));
        for _ in 0..19 {
            sender.send(piece.clone()).unwrap();
        }
        unfinished.push((sender, receiving));
    }
    let_tasks_run().await;
    assert!(memory.reserved_bytes() <= 40 * MIB as u64, "{}", memory.reserved_bytes());
    // A thumbnail finds memory in the share for small requests.
    let (sender, receiving) = start(&receiver, Some(50_000));
    sender.send(vec![7; 50_000].into()).unwrap();
    drop(sender);
    let_tasks_run().await;
    assert!(receiving.is_finished(), "a small body is not queued behind large ones");
    // The others end the silence: too slow, or too long without memory. Then the whole budget is free again.
    for (sender, receiving) in unfinished {
        let error = receiving.await.unwrap().unwrap_err();
        assert!(matches!(error, BodyError::TooSlow { .. } | BodyError::Memory(_)), "{error:?}");
        drop(sender);
    }
    let _ = receiving.await;
    assert_eq!(memory.reserved_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn bodies_that_all_arrive_at_once_all_finish() {
    let (receiver, memory) = new_receiver(LIMITS);
    let piece = Bytes::from(vec![7; MIB]);
    let receiving: Vec<_> = (0..20)
        .map(|_| {
            let (sender, receiving) = start(&receiver, Some(MAX_BYTES));
            for _ in 0..20 {
                sender.send(piece.clone()).unwrap();
            }
            // A body that has arrived must not keep its memory until it is the first in line.
            tokio::spawn(async move { receiving.await.unwrap().unwrap().bytes.len() })
        })
        .collect();
    for length in receiving {
        assert_eq!(length.await.unwrap(), MAX_BYTES);
    }
    assert_eq!(memory.reserved_bytes(), 0);
}

#[tokio::test]
async fn body_above_the_limit_is_refused_whether_or_not_it_announces_its_length() {
    let (receiver, _) = new_receiver(BodyLimits { max_bytes: 1000, ..LIMITS });
    for announced_length in [Some(1001), None] {
        let (sender, receiving) = start(&receiver, announced_length);
        if announced_length.is_none() {
            sender.send(vec![7; 1001].into()).unwrap();
        }
        let error = receiving.await.unwrap().unwrap_err();
        assert!(matches!(error, BodyError::TooLarge { limit: 1000 }), "{error:?}");
    }
    let (sender, request) = new_request("image/jpeg", None);
    sender.send(vec![7; 501].into()).unwrap();
    let error = receiver.receive_up_to(request, 500).await.unwrap_err();
    assert!(matches!(error, BodyError::TooLarge { limit: 500 }), "{error:?}");
}

const FORM: &str = "multipart/form-data; boundary=BOUNDARY";

fn field(name: &str, content: &[u8]) -> Vec<u8> {
    let head = format!(
        "--BOUNDARY\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}.jpg\"\r\n\r\n"
    );
    [head.as_bytes(), content, b"\r\n"].concat()
}

/// Receives a form that arrives in pieces of `piece_length` bytes.
async fn receive_form(
    limits: BodyLimits,
    form: &[u8],
    piece_length: usize,
    max_files: usize,
) -> Result<FormFiles, BodyError> {
    let (receiver, memory) = new_receiver(limits);
    let (sender, request) = new_request(FORM, None);
    for piece in form.chunks(piece_length) {
        sender.send(Bytes::copy_from_slice(piece)).unwrap();
    }
    drop(sender);
    let result = receiver.receive_form(request, "file", max_files).await;
    let file_bytes = result.as_ref().map_or(0, |form| form.files.iter().map(|file| file.bytes.len()).sum());
    assert_eq!(memory.reserved_bytes(), file_bytes as u64);
    result
}

#[tokio::test]
async fn form_with_many_fields_and_a_long_file_is_received() {
    let long: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let fields = (0..1000).flat_map(|number| field("comment", number.to_string().as_bytes()));
    let mut form: Vec<u8> = fields.collect();
    form.extend(field("file", &long));
    form.extend(field("file", b""));
    form.extend(b"--BOUNDARY--\r\n");
    for piece_length in [1_000, 100_000, form.len()] {
        let FormFiles { files, .. } = receive_form(LIMITS, &form, piece_length, 2).await.unwrap();
        assert_eq!(files.len(), 2);
        assert_eq!(files[0].name.as_deref(), Some("file.jpg"));
        assert!(files[0].bytes == long && files[1].bytes.is_empty());
    }
}

#[tokio::test]
async fn form_that_breaks_a_rule_is_refused() {
    let whole = [field("file", b"content"), b"--BOUNDARY--\r\n".to_vec()].concat();
    let long_header = [b"--BOUNDARY\r\nX: ".to_vec(), vec![b'x'; 100_000], whole.clone()].concat();
    let long_preamble = [vec![b'x'; 100_000], whole.clone()].concat();
    for form in [long_header, long_preamble] {
        let error = receive_form(LIMITS, &form, form.len(), 1).await.unwrap_err();
        assert!(matches!(error, BodyError::FormHeadersTooLong), "{error:?}");
    }
    for length in [0, 1, 20, whole.len() - 30, whole.len() - 10] {
        let error = receive_form(LIMITS, &whole[..length], 7, 1).await.unwrap_err();
        assert!(matches!(error, BodyError::BadForm(_)), "{length}: {error:?}");
    }
    let error = receive_form(LIMITS, &whole, 7, 0).await.unwrap_err();
    assert!(matches!(error, BodyError::TooManyFiles { limit: 0 }), "{error:?}");
    let limits = BodyLimits { max_bytes: whole.len() - 10, ..LIMITS };
    let error = receive_form(limits, &whole, 7, 1).await.unwrap_err();
    assert!(matches!(error, BodyError::TooLarge { .. }), "{error:?}");
    let (receiver, _) = new_receiver(LIMITS);
    let (_sender, request) = new_request("multipart/form-data", None);
    let error = receiver.receive_form(request, "file", 1).await.unwrap_err();
    assert!(matches!(error, BodyError::BadForm(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn slow_form_is_cut_off() {
    let (receiver, memory) = new_receiver(LIMITS);
    let (sender, request) = new_request(FORM, Some(MAX_BYTES));
    sender.send(field("file", b"").into()).unwrap();
    let error = receiver.receive_form(request, "file", 1).await.unwrap_err();
    assert!(matches!(error, BodyError::TooSlow { .. }), "{error:?}");
    assert_eq!(memory.reserved_bytes(), 0);
}

#[test]
fn every_error_has_its_status_and_kind() {
    let errors = [
        (BodyError::TooLarge { limit: 1 }, 413, "body_too_large"),
        (BodyError::TimedOut { limit: Duration::from_secs(1) }, 408, "upload_timeout"),
        (BodyError::TooSlow { min_rate: 1, grace: Duration::from_secs(1) }, 408, "upload_too_slow"),
        (MemoryBudgetError::Overloaded.into(), 429, "overloaded"),
        (MemoryBudgetError::TimedOut.into(), 429, "overloaded"),
        (MemoryBudgetError::ExceedsBudget.into(), 500, "internal"),
        (BodyError::Incomplete(axum::Error::new("cut")), 400, "bad_body"),
        (BodyError::BadForm(multer::Error::IncompleteStream), 400, "bad_multipart"),
        (BodyError::FormHeadersTooLong, 400, "bad_multipart"),
        (BodyError::TooManyFiles { limit: 1 }, 422, "too_many_files"),
    ];
    for (error, status, kind) in errors {
        let text = format!("{error:?}");
        let problem = Problem::from(error);
        assert_eq!((problem.status.as_u16(), problem.kind), (status, kind), "{text}");
        assert_eq!(problem.retry_after.is_some(), status == 429, "{text}");
    }
}

proptest! {
    #[test]
    fn body_is_received_as_it_was_sent(
        lengths in prop::collection::vec(0..400_000_usize, 0..12),
        is_announced: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (receiver, memory) = new_receiver(LIMITS);
            let total = lengths.iter().sum();
            let (sender, receiving) = start(&receiver, is_announced.then_some(total));
            let mut sent = Vec::new();
            for (number, length) in lengths.into_iter().enumerate() {
                let piece = vec![u8::try_from(number).unwrap(); length];
                sent.extend(&piece);
                sender.send(piece.into()).unwrap();
            }
            drop(sender);
            let received = receiving.await.unwrap().unwrap();
            assert!(received.bytes == sent);
            assert_eq!(memory.reserved_bytes(), total as u64);
        });
    }

    #[test]
    fn reserved_length_covers_what_has_arrived_and_little_more(
        length in 0..=MAX_BYTES,
        max_length in 0..=MAX_BYTES,
    ) {
        let length = length.min(max_length);
        let reserved = reserved_length(length, max_length);
        prop_assert!((length..=max_length).contains(&reserved));
        prop_assert!(reserved <= (2 * length).max(FIRST_STEP_BYTES));
        prop_assert!(reserved <= length + MAX_STEP_BYTES);
    }
}
