//! Ten times as many uploads as are let in: each is answered, nothing is done for those that are refused,
//! and the memory stays within its bound.
//!
//! The service has a process of its own, so that its memory and CPU time are its own. How much it gets done
//! is printed, not asserted: on a machine with other work to do it would fail by chance.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    num::NonZeroUsize,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use cpu_time::ProcessTime;
use preprocess::Settings;
use tokio::task::JoinSet;

use crate::{
    hostile::{
        jpeg::photo,
        rig::{most_resident, resident_now},
    },
    support::{TestApp, sample},
};

/// Name of the test that is the service's process.
const SERVICE: &str = "overload::a_service_in_a_process_of_its_own";
const IS_SERVICE: &str = "OVERLOADED_SERVICE";
/// What its lines begin with.
const ADDRESS: &str = "address:";
const FIGURES: &str = "figures:";

/// Pictures that are let in at once.
const PLACES: usize = 8;
/// How long each part lasts.
const PART: Duration = Duration::from_secs(2);
/// Beside the memory that is given out: connections, what the bucket keeps, and the program itself.
const SLACK_BYTES: u64 = 64 << 20;

fn settings() -> Settings {
    Settings { queue_items: const { NonZeroUsize::new(PLACES).unwrap() }, ..Settings::default() }
}

/// The service, until it is told to stop.
struct Service {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    url: String,
}

/// What it did since it was asked before.
struct Figures {
    stored: usize,
    peak: u64,
    milliseconds: u64,
}

impl Service {
    fn start() -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", SERVICE, "--ignored", "--nocapture"])
            .env(IS_SERVICE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut service = Self { child, stdin, stdout, url: String::new() };
        service.url = service.line(ADDRESS);
        service
    }

    fn figures(&mut self) -> Figures {
        self.stdin.write_all(b"?").unwrap();
        let line = self.line(FIGURES);
        let mut figures = line.split_whitespace().map(|figure| figure.parse::<u64>().unwrap());
        let mut next = || figures.next().unwrap();
        Figures { stored: usize::try_from(next()).unwrap(), peak: next(), milliseconds: next() }
    }

    fn line(&mut self, begins: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the service died");
            if let Some((_, rest)) = line.split_once(begins) {
                return rest.trim().to_owned();
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
#[ignore = "a part of the test of overload, which starts it"]
async fn a_service_in_a_process_of_its_own() {
    if env::var_os(IS_SERVICE).is_none() {
        return;
    }
    let app = TestApp::start(settings()).await;
    println!("{ADDRESS} {}", app.url("/preprocess"));
    let before = resident_now();
    let (mut stored_before, mut started) = (0, ProcessTime::now());
    // Ends with the process that reads this.
    loop {
        let asked = tokio::task::spawn_blocking(|| std::io::stdin().read_exact(&mut [0])).await.unwrap();
        if asked.is_err() {
            return;
        }
        let stored = app.topic.published().len();
        let peak = most_resident().saturating_sub(before);
        let milliseconds = started.elapsed().as_millis();
        println!("{FIGURES} {} {peak} {milliseconds}", stored - stored_before);
        (stored_before, started) = (stored, ProcessTime::now());
    }
}

/// Who sends uploads.
#[derive(Clone, Copy)]
struct Part {
    name: &'static str,
    at_once: usize,
    /// Whoever is refused comes back when it was told to, instead of at once.
    patient: bool,
}

const PARTS: [Part; 4] = [
    Part { name: "warm", at_once: PLACES / 2, patient: true },
    Part { name: "unloaded", at_once: PLACES / 2, patient: true },
    Part {
        name: "overloaded by callers who come back when they are told to",
        at_once: 10 * PLACES,
        patient: true,
    },
    Part { name: "overloaded by callers who come back at once", at_once: 10 * PLACES, patient: false },
];

/// What came of some uploads.
struct Outcome {
    stored: usize,
    /// Of these, before the part was over.
    in_time: usize,
    refused: usize,
}

/// Sends uploads, so many at once, for as long as a [`PART`] lasts. Each is another one: what was stored
/// before is not announced again.
async fn send(url: &str, files: &Arc<Vec<Vec<u8>>>, part: Part) -> Outcome {
    let Part { name, at_once, patient } = part;
    let client = reqwest::Client::new();
    let [stored, in_time, refused] = std::array::from_fn(|_| Arc::new(AtomicUsize::new(0)));
    let end = Instant::now() + PART;
    let mut senders = JoinSet::new();
    for sender in 0..at_once {
        let (client, url, files) = (client.clone(), url.to_owned(), Arc::clone(files));
        let [stored, in_time, refused] = [&stored, &in_time, &refused].map(Arc::clone);
        senders.spawn(async move {
            let mut number = sender;
            while Instant::now() < end {
                let mut body = files[number % files.len()].clone();
                body.extend(format!("{name} {sender} {number}").bytes());
                let request = client.post(&url).header("content-type", "image/jpeg").body(body);
                let response = request.send().await.unwrap();
                match response.status().as_u16() {
                    200 => {
                        in_time.fetch_add(usize::from(Instant::now() < end), Ordering::SeqCst);
                        stored.fetch_add(1, Ordering::SeqCst)
                    }
                    429 => refused.fetch_add(1, Ordering::SeqCst),
                    other => panic!("answered {other}"),
                };
                let pause =
                    response.headers().get("retry-after").map(|seconds| seconds.to_str().unwrap().parse());
                response.bytes().await.unwrap();
                if let Some(pause) = pause.filter(|_| patient) {
                    let back_at = Instant::now() + Duration::from_secs(pause.unwrap());
                    tokio::time::sleep_until(back_at.min(end).into()).await;
                }
                number += 1;
            }
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent.unwrap();
    }
    let [stored, in_time, refused] = [stored, in_time, refused].map(|count| count.load(Ordering::SeqCst));
    Outcome { stored, in_time, refused }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_as_many_as_are_let_in() {
    let samples = ["coffee.jpg", "rocket.jpg", "chelsea.jpg", "coffee.jpg", "rocket.jpg"].map(sample);
    let files: Vec<_> = samples.into_iter().chain([photo(1633, 1225), photo(4000, 3000)]).collect();
    let files = Arc::new(files);
    let mut service = Service::start();
    let url = service.url.clone();
    let mut unloaded = 0.0;
    for part in PARTS {
        let Outcome { stored, in_time, refused } = send(&url, &files, part).await;
        let figures = service.figures();
        let rate = in_time as f64 / PART.as_secs_f64();
        if part.at_once < PLACES {
            unloaded = rate;
        }
        let work = figures.milliseconds as f64 / stored as f64;
        let (name, share, peak) = (part.name, 100.0 * rate / unloaded, figures.peak >> 10);
        println!(
            "{name}: {stored} stored, {refused} refused, {rate:.1} a second ({share:.0} %), {work:.2} ms of \
             CPU for each, {peak} KiB at most"
        );
        // One announcement for each that was answered 200, and none for the others.
        assert_eq!(figures.stored, stored, "{name}");
        assert_eq!(refused > 0, part.at_once > PLACES, "{name}: {refused} refused");
        let bound = settings().max_memory as u64 + SLACK_BYTES;
        assert!(figures.peak <= bound, "{name}: {} of {bound} bytes", figures.peak);
    }
}
