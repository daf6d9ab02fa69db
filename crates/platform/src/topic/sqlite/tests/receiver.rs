//! HTTP servers to which the pusher of a test delivers.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::TEST_TIMEOUT;
use crate::topic::push::Delivery;

/// Returns the response to a push. The argument is the number of the push, counted from 0.
pub(super) type Responder = fn(usize) -> Response;

pub(super) enum Response {
    Status(StatusCode),
    /// The receiver does not respond.
    Never,
}

/// An HTTP server to which messages are pushed. It passes the deliveries to the test.
pub(super) struct Receiver {
    address: SocketAddr,
    pub(super) deliveries: mpsc::UnboundedReceiver<Delivery>,
}

/// State of the HTTP handler of a [`Receiver`].
struct ReceiverState {
    push_count: AtomicUsize,
    responder: Responder,
    deliveries: mpsc::UnboundedSender<Delivery>,
}

impl Receiver {
    pub(super) async fn start(responder: Responder) -> Self {
        let (sender, deliveries) = mpsc::unbounded_channel();
        let state =
            Arc::new(ReceiverState { push_count: AtomicUsize::new(0), responder, deliveries: sender });
        let app = Router::new().route("/push", post(receive)).with_state(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, deliveries }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/push", self.address)
    }

    pub(super) async fn next_delivery(&mut self) -> Delivery {
        timeout(TEST_TIMEOUT, self.deliveries.recv()).await.expect("a push should arrive in time").unwrap()
    }
}

async fn receive(State(state): State<Arc<ReceiverState>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/json");
    let number = state.push_count.fetch_add(1, Ordering::SeqCst);
    state.deliveries.send(Delivery::parse(&headers, &body).unwrap()).unwrap();
    match (state.responder)(number) {
        Response::Status(status) => status,
        Response::Never => std::future::pending().await,
    }
}

/// An HTTP server to which messages are pushed. The test responds to each push.
pub(super) struct GatedReceiver {
    address: SocketAddr,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
}

/// A push that a [`GatedReceiver`] has received.
pub(super) struct Arrival {
    pub(super) name: String,
    pub(super) attempt: Option<u32>,
    /// Number of pushes in progress, including this one.
    pub(super) concurrent: usize,
    pub(super) response: oneshot::Sender<StatusCode>,
}

impl GatedReceiver {
    pub(super) async fn start() -> Self {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let app = Router::new().route("/push", post(receive_gated)).with_state((sender, Arc::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, arrivals }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/push", self.address)
    }

    pub(super) async fn next(&mut self) -> Arrival {
        timeout(TEST_TIMEOUT, self.arrivals.recv()).await.expect("a push should arrive in time").unwrap()
    }
}

async fn receive_gated(
    State((arrivals, concurrent)): State<(mpsc::UnboundedSender<Arrival>, Arc<AtomicUsize>)>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let delivery = Delivery::parse(&headers, &body).unwrap();
    let (response, receiver) = oneshot::channel();
    let name = delivery.attributes["name"].clone();
    let attempt = delivery.delivery_attempt;
    let now = concurrent.fetch_add(1, Ordering::SeqCst) + 1;
    arrivals.send(Arrival { name, attempt, concurrent: now, response }).unwrap();
    let Ok(status) = receiver.await else { std::future::pending().await };
    concurrent.fetch_sub(1, Ordering::SeqCst);
    status
}

pub(super) fn always_ok(_: usize) -> Response {
    Response::Status(StatusCode::OK)
}

pub(super) fn always_503(_: usize) -> Response {
    Response::Status(StatusCode::SERVICE_UNAVAILABLE)
}
