//! Sends `GET /live` and `GET /ready` to both services all the time, and measures the gaps between the answers.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    Soak,
    program::{Life, Service},
};

/// Interval between the beginnings of two probes.
const INTERVAL: Duration = Duration::from_millis(200);
/// Timeout of a probe. The next probe uses a new connection.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time without an answer of `/live` while a process runs.
pub(crate) const MAX_LIVE_GAP: Duration = Duration::from_secs(10);
/// Routes that are probed, of both services.
pub(crate) const ROUTES: [&str; 2] = ["/live", "/ready"];

/// Measurements of one route.
#[derive(Clone, Default)]
pub(crate) struct RouteProbes {
    /// Longest time without an answer between the first answer of a process and its end.
    pub(crate) worst_gap: Duration,
    /// Longest time from the beginning of a probe to its answer.
    pub(crate) worst_latency: Duration,
    /// Longest time from the start of a process to its first answer with 200.
    pub(crate) slowest_start: Duration,
    pub(crate) ok_count: usize,
    /// Answers of a running process with another status than 200.
    pub(crate) not_ok_count: usize,
}

/// Measurements of all routes, by service and route.
#[derive(Default)]
pub(crate) struct Probes {
    routes: Mutex<BTreeMap<(&'static str, &'static str), RouteProbes>>,
    is_stopped: AtomicBool,
}

impl Probes {
    /// Returns the measurements of `route` of `service`.
    pub(crate) fn of(&self, service: Service, route: &'static str) -> RouteProbes {
        self.routes.lock().unwrap().get(&(service.name, route)).cloned().unwrap_or_default()
    }

    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
    }
}

/// Starts one thread per service and route.
///
/// The probers are threads with blocking connections, so the load on the soak's own runtime does not delay
/// them.
pub(crate) fn spawn(soak: &Arc<Soak>) -> Vec<JoinHandle<()>> {
    let targets = soak.program.services.into_iter().flat_map(|service| ROUTES.map(|route| (service, route)));
    targets
        .map(|(service, route)| {
            let soak = soak.clone();
            thread::spawn(move || {
                let life = soak.program.life();
                Prober { soak, service, route, life, last_answer: None }.run();
            })
        })
        .collect()
}

struct Prober {
    soak: Arc<Soak>,
    service: Service,
    route: &'static str,
    /// The process that is measured.
    life: Arc<Life>,
    last_answer: Option<Instant>,
}

impl Prober {
    fn run(mut self) {
        while !self.soak.probes.is_stopped.load(Ordering::SeqCst) {
            let current = self.soak.program.life();
            if current.number != self.life.number {
                self.finish_life();
                self.life = current;
            }
            let question = Instant::now();
            let status = ask(self.service.address, self.route);
            let answer = Instant::now();
            // An answer near the end of a process is not counted, because the next process may have given it.
            if let Some(status) = status
                && self.life.end.get().is_none()
            {
                self.count(status, question, answer);
            }
            thread::sleep(INTERVAL.saturating_sub(question.elapsed()));
        }
        self.finish_life();
    }

    fn update(&self, change: impl FnOnce(&mut RouteProbes)) {
        change(self.soak.probes.routes.lock().unwrap().entry((self.service.name, self.route)).or_default());
    }

    fn count(&mut self, status: u16, question: Instant, answer: Instant) {
        let is_ok = status == 200;
        let is_first = self.last_answer.is_none();
        // Before the first 200, a process is starting.
        if is_first && !is_ok {
            return;
        }
        // A service answers `/ready` with 503 if its disk has failed, and that is an answer, too.
        if is_ok || self.route == "/ready" {
            self.last_answer.replace(answer).inspect(|last_answer| self.add_gap(answer - *last_answer));
        }
        self.update(|probes| {
            if is_first {
                probes.slowest_start = probes.slowest_start.max(answer - self.life.start);
            }
            probes.worst_latency = probes.worst_latency.max(answer - question);
            if is_ok { probes.ok_count += 1 } else { probes.not_ok_count += 1 }
        });
        if is_ok && self.route == "/ready" {
            self.life.is_ready[self.service.index].store(true, Ordering::SeqCst);
        }
    }

    fn add_gap(&self, gap: Duration) {
        self.update(|probes| probes.worst_gap = probes.worst_gap.max(gap));
        if self.route == "/live" && gap > MAX_LIVE_GAP {
            let (name, number) = (self.service.name, self.life.number);
            self.soak.violations.add(
                "/live was silent",
                format!("{name}, process {number}: {:.1} s without an answer", gap.as_secs_f64()),
            );
        }
    }

    /// Counts the time between the last answer of the process and its end.
    fn finish_life(&mut self) {
        let end = self.life.end.get().copied().unwrap_or_else(Instant::now);
        if let Some(last_answer) = self.last_answer.take() {
            self.add_gap(end.saturating_duration_since(last_answer));
        }
    }
}

/// Sends `GET route` on a new connection. Returns the status of the response, or `None` without a response.
fn ask(address: SocketAddr, route: &str) -> Option<u16> {
    let mut connection = TcpStream::connect_timeout(&address, ATTEMPT_TIMEOUT).ok()?;
    connection.set_read_timeout(Some(ATTEMPT_TIMEOUT)).ok()?;
    connection
        .write_all(format!("GET {route} HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n").as_bytes())
        .ok()?;
    let mut head = [0; "HTTP/1.1 200".len()];
    connection.read_exact(&mut head).ok()?;
    // The rest is read so that the connection closes normally.
    let _ = connection.take(64 << 10).read_to_end(&mut Vec::new());
    std::str::from_utf8(&head[9..]).ok()?.parse().ok()
}
