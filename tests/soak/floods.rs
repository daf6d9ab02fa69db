//! Hostile clients that hold connections open, and clients that retry `POST /classify` without a pause.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Soak,
    checks::NO_ANSWER,
    clients::{http_client, read_sample},
    program::Service,
};

/// Number of connections per service that send nothing.
const IDLE_COUNT: usize = 500;
/// Number of connections per service that send half a header, or a byte of a body per second.
const SLOW_COUNT: usize = 50;
/// Pause before a connection is opened again.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of concurrent requests of the flood.
const MAX_FLOOD: usize = 200;

/// Numbers of the connections of hostile clients.
#[derive(Default)]
pub(crate) struct Connections {
    pub(crate) idle: ConnectionCounts,
    pub(crate) slow: ConnectionCounts,
}

#[derive(Default)]
pub(crate) struct ConnectionCounts {
    pub(crate) opened: AtomicUsize,
    /// Connections that a running process has closed.
    pub(crate) closed: AtomicUsize,
}

#[derive(Clone, Copy)]
enum Behaviour {
    Idle,
    HalfHeader,
    SlowBody,
}

/// Starts the hostile connections of both services and the flood.
pub(crate) fn spawn(
    soak: &Arc<Soak>,
    rng: &mut fastrand::Rng,
    stop: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    let behaviours = std::iter::repeat_n(Behaviour::Idle, IDLE_COUNT)
        .chain(std::iter::repeat_n(Behaviour::HalfHeader, SLOW_COUNT / 2))
        .chain(std::iter::repeat_n(Behaviour::SlowBody, SLOW_COUNT / 2));
    let mut tasks = Vec::new();
    for (behaviour, service) in behaviours.flat_map(|it| soak.program.services.map(|service| (it, service))) {
        let (soak, stop) = (soak.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            stop.run_until_cancelled(hold_connections(&soak, service, behaviour)).await;
        }));
    }
    let (soak, stop, rng) = (soak.clone(), stop.clone(), rng.fork());
    tasks.push(tokio::spawn(async move {
        stop.run_until_cancelled(flood_classify(&soak, rng)).await;
    }));
    tasks
}

/// Holds a connection open, and opens the next one when it is closed.
async fn hold_connections(soak: &Soak, service: Service, behaviour: Behaviour) {
    let counts = match behaviour {
        Behaviour::Idle => &soak.connections.idle,
        Behaviour::HalfHeader | Behaviour::SlowBody => &soak.connections.slow,
    };
    loop {
        let life = soak.program.life();
        if let Ok(connection) = TcpStream::connect(service.address).await {
            counts.opened.fetch_add(1, Ordering::SeqCst);
            hold_connection(connection, service, behaviour).await;
            if life.end.get().is_none() {
                counts.closed.fetch_add(1, Ordering::SeqCst);
            }
        }
        tokio::time::sleep(REOPEN_PAUSE).await;
    }
}

/// Returns when the program closes the connection.
async fn hold_connection(mut connection: TcpStream, service: Service, behaviour: Behaviour) {
    let (mut reader, mut writer) = connection.split();
    let send = async {
        let route = service.route;
        match behaviour {
            Behaviour::Idle => {}
            Behaviour::HalfHeader => {
                let head = format!("POST {route} HTTP/1.1\r\nHost: soak\r\nX-Half: ");
                let _ = writer.write_all(head.as_bytes()).await;
            }
            Behaviour::SlowBody => {
                let head = format!(
                    "POST {route} HTTP/1.1\r\nHost: soak\r\nContent-Type: image/jpeg\r\nContent-Length: 100000\r\n\r\n"
                );
                let _ = writer.write_all(head.as_bytes()).await;
                while writer.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        // An unfinished request ends only when the program closes the connection.
        std::future::pending::<()>().await;
    };
    let mut buffer = [0; 1024];
    let receive = async { while reader.read(&mut buffer).await.is_ok_and(|length| length > 0) {} };
    tokio::select! {
        () = send => {}
        () = receive => {}
    }
}

/// Sends waves of `POST /classify`. Every client of a wave ignores Retry-After and repeats its request at once.
async fn flood_classify(soak: &Arc<Soak>, mut rng: fastrand::Rng) {
    let photo = Bytes::from(read_sample("rocket.jpg"));
    let http = http_client();
    loop {
        let mut wave = JoinSet::new();
        for _ in 0..rng.usize(MAX_FLOOD / 4..=MAX_FLOOD) {
            let (soak, photo, http) = (soak.clone(), photo.clone(), http.clone());
            wave.spawn(async move {
                loop {
                    flood_once(&soak, &http, photo.clone()).await;
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(5_000..10_000))).await;
        // Dropping the wave aborts its requests.
        drop(wave);
        tokio::time::sleep(Duration::from_millis(rng.u64(2_000..5_000))).await;
    }
}

async fn flood_once(soak: &Soak, http: &reqwest::Client, photo: Bytes) {
    let request = http.post(soak.program.classify().url("/classify")).header("content-type", "image/jpeg");
    match request.body(photo).send().await {
        Ok(response) => {
            let status = response.status();
            soak.flood_answers.add(status.as_str());
            // The connection is reused only if the body is read.
            let body = response.text().await.unwrap_or_default();
            if status.as_u16() == 500 {
                soak.violations.add("answer with status 500", format!("flood: {body}"));
            }
        }
        Err(_) => {
            soak.flood_answers.add(NO_ANSWER);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
