//! Requests that cost a careless service far more memory or time than they cost the client.

use std::{io::Write, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Soak,
    checks::{HELD, MAX_TEXT, NO_ANSWER, NOT_SENT},
    clients::{RECONNECT_PAUSE, http_client},
    program::{MAX_START, Service},
};

/// Size of a large body, slightly below the limit of 32 MiB.
const BODY_SIZE: usize = 33_000_000;
/// Width and height of the PNG bomb, whose pixels are the maximum of 64 million.
const PNG_SIDE: u32 = 8000;
/// Number of bodies that are never finished.
const UNFINISHED_COUNT: usize = 150;
/// Timeout of the answer to a bomb. It is short so that a short soak repeats every bomb.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which a client keeps its unfinished body open.
const HOLD_TIME: Duration = Duration::from_secs(4);

/// A request, and the number of copies that are sent at the same time.
#[derive(Clone)]
pub(crate) struct Bomb {
    pub(crate) name: &'static str,
    service: Service,
    route: &'static str,
    content_type: &'static str,
    body: Bytes,
    copies: usize,
    /// True if the last byte of the body is never sent.
    is_unfinished: bool,
}

/// Starts the task that sends one bomb after the other in a random order.
///
/// The task sends every bomb at least once, even if `stop` is cancelled before.
pub(crate) fn spawn(
    soak: &Arc<Soak>,
    mut bombs: Vec<Bomb>,
    mut rng: fastrand::Rng,
    stop: &CancellationToken,
) -> JoinHandle<()> {
    let (soak, stop) = (soak.clone(), stop.clone());
    tokio::spawn(async move {
        throw_all(&soak, &mut bombs, &mut rng).await;
        let further_rounds = async {
            loop {
                throw_all(&soak, &mut bombs, &mut rng).await;
            }
        };
        stop.run_until_cancelled(further_rounds).await;
    })
}

/// Returns all bombs. Compressing the picture takes seconds without optimisation.
pub(crate) fn make_bombs(services: [Service; 2]) -> Vec<Bomb> {
    let [preprocess, classify] = services;
    let json = |name, route, body| Bomb {
        name,
        service: classify,
        route,
        content_type: "application/json",
        body,
        copies: 2,
        is_unfinished: false,
    };
    let png_file = make_png();
    let png = |name, service: Service, copies| Bomb {
        name,
        service,
        route: service.route,
        content_type: "image/png",
        body: png_file.clone(),
        copies,
        is_unfinished: false,
    };
    let zeros = Bytes::from(vec![0; BODY_SIZE]);
    let unfinished = |name, service: Service| Bomb {
        name,
        service,
        route: service.route,
        content_type: "image/jpeg",
        body: zeros.clone(),
        copies: UNFINISHED_COUNT,
        is_unfinished: true,
    };
    let objects = repeat_up_to_body_size("[", r#"{"":0},"#, r#"{"":0}]"#);
    let members = repeat_up_to_body_size(r#"{"gcs_path":"gs://local/a/image.jpg""#, r#","m":[{"":0}]"#, "}");
    let delete_chars =
        repeat_up_to_body_size(r#"{"gcs_path":"gs://local/a/image.jpg","top_k":""#, "\x7f", r#""}"#);
    let message_id = repeat_up_to_body_size(
        r#"{"message":{"data":"e30=","messageId":""#,
        "\u{7f}",
        r#""},"subscription":"s"}"#,
    );
    vec![
        json("JSON array to /pubsub", "/pubsub", objects),
        json("unknown members to /classify", "/classify", members),
        json("long top_k to /classify", "/classify", delete_chars),
        json("long messageId to /pubsub", "/pubsub", message_id),
        png("PNG to /classify", classify, 8),
        png("PNG to /preprocess", preprocess, 4),
        unfinished("unfinished bodies to /classify", classify),
        unfinished("unfinished bodies to /preprocess", preprocess),
    ]
}

/// Returns `start`, many copies of `middle`, and `end`, together at most [`BODY_SIZE`] bytes.
fn repeat_up_to_body_size(start: &str, middle: &str, end: &str) -> Bytes {
    let count = (BODY_SIZE - start.len() - end.len()) / middle.len();
    [start, &middle.repeat(count), end].concat().into()
}

/// Returns a PNG file of a few hundred kilobytes whose picture has 400 MB.
fn make_png() -> Bytes {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, PNG_SIDE, PNG_SIDE);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Sixteen);
    encoder.set_compression(png::Compression::Fast);
    encoder.set_filter(png::Filter::NoFilter);
    let mut writer = encoder.write_header().unwrap();
    let mut pixels = writer.stream_writer().unwrap();
    let row = vec![0; PNG_SIDE as usize * 8];
    for _ in 0..PNG_SIDE {
        pixels.write_all(&row).unwrap();
    }
    pixels.finish().unwrap();
    writer.finish().unwrap();
    file.into()
}

/// Sends one bomb after the other in a random order.
async fn throw_all(soak: &Arc<Soak>, bombs: &mut [Bomb], rng: &mut fastrand::Rng) {
    rng.shuffle(bombs);
    for bomb in bombs.iter() {
        throw(soak, bomb).await;
        tokio::time::sleep(Duration::from_millis(rng.u64(200..800))).await;
    }
}

/// Sends all copies of a bomb at the same time and waits for their answers.
///
/// Waits before for a process that accepts connections, because a bomb that is not sent tests nothing.
async fn throw(soak: &Arc<Soak>, bomb: &Bomb) {
    let wait_for_process = async {
        while TcpStream::connect(bomb.service.address).await.is_err() {
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    };
    let _ = tokio::time::timeout(MAX_START, wait_for_process).await;
    let mut copies = JoinSet::new();
    for _ in 0..bomb.copies {
        let (soak, bomb) = (soak.clone(), bomb.clone());
        copies.spawn(async move {
            if bomb.is_unfinished {
                soak.bomb_answers.add(bomb.name, send_unfinished(&bomb).await);
            } else {
                send(&soak, &bomb).await;
            }
        });
    }
    while let Some(copy) = copies.join_next().await {
        copy.unwrap();
    }
}

async fn send(soak: &Soak, bomb: &Bomb) {
    let request = http_client()
        .post(bomb.service.url(bomb.route))
        .header("content-type", bomb.content_type)
        .timeout(ANSWER_TIMEOUT)
        .body(bomb.body.clone());
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) => {
            soak.bomb_answers.add(bomb.name, if error.is_connect() { NOT_SENT } else { NO_ANSWER });
            return;
        }
    };
    let status = response.status();
    soak.bomb_answers.add(bomb.name, status.as_str());
    let mut start = Vec::new();
    let mut length = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        length += chunk.len();
        if start.len() < 300 {
            start.extend_from_slice(&chunk[..chunk.len().min(300)]);
        }
    }
    let start = String::from_utf8_lossy(&start).into_owned();
    if length > MAX_TEXT {
        soak.violations.add("answer over 8 KB", format!("{}: {length} bytes: {start}", bomb.name));
    }
    if status.as_u16() == 500 {
        soak.violations.add("answer with status 500", format!("{}: {start}", bomb.name));
    }
}

/// Sends a body without its last byte.
///
/// Returns the outcome: [`NOT_SENT`], [`NO_ANSWER`], [`HELD`], or the status of the response.
async fn send_unfinished(bomb: &Bomb) -> String {
    let Ok(mut connection) = TcpStream::connect(bomb.service.address).await else {
        return NOT_SENT.to_owned();
    };
    let (mut reader, mut writer) = connection.split();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: soak\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
        bomb.route,
        bomb.content_type,
        bomb.body.len()
    );
    let send = async {
        // Sending fails if the service has closed the connection. Then the response is received below.
        if writer.write_all(head.as_bytes()).await.is_ok() {
            let _ = writer.write_all(&bomb.body[1..]).await;
        }
        std::future::pending().await
    };
    let receive = async {
        let mut start = [0; "HTTP/1.1 200".len()];
        match reader.read_exact(&mut start).await {
            Ok(_) => format!("refused with {}", String::from_utf8_lossy(&start["HTTP/1.1 ".len()..])),
            Err(_) => NO_ANSWER.to_owned(),
        }
    };
    tokio::select! {
        outcome = receive => outcome,
        never = send => never,
        () = tokio::time::sleep(HOLD_TIME) => HELD.to_owned(),
    }
}
