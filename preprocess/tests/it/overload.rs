//! Tests the service with ten times as many concurrent uploads as it accepts.
//!
//! Every upload must get a response, refused uploads must not be announced, and the memory of the service
//! must stay within its limit.
//!
//! The service runs in a separate process, so that its memory and CPU time can be measured. The throughput is
//! printed and not asserted, because it depends on the other load of the machine.

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
        rig::{peak_resident_bytes, reset_peak_resident_bytes},
    },
    support::{TestApp, read_sample},
};

/// Name of the test that runs the service in the separate process.
const SERVICE_TEST: &str = "overload::service_process";
/// Environment variable that is set only in the process of the service.
const SERVICE_VARIABLE: &str = "OVERLOADED_SERVICE";
/// Text before the address in the output of the service.
const ADDRESS_LABEL: &str = "address:";
/// Text before the measurements in the output of the service.
const FIGURES_LABEL: &str = "figures:";

/// Maximum number of images that the service processes or queues at the same time.
const MAX_IMAGES: usize = 8;
/// Duration of each phase.
const PHASE_DURATION: Duration = Duration::from_secs(2);
/// Memory that no budget covers: connections, objects in the bucket, and the program itself.
const SLACK_BYTES: u64 = 64 << 20;

fn settings() -> Settings {
    Settings {
        preprocess_queue_items: const { NonZeroUsize::new(MAX_IMAGES).unwrap() },
        ..Settings::default()
    }
}

/// The process of the service. Dropping this value kills the process.
struct Service {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    url: String,
}

/// Measurements since the previous call of [`Service::read_figures`].
struct Figures {
    announced_count: usize,
    peak_bytes: u64,
    cpu_milliseconds: u64,
}

impl Service {
    fn start() -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", SERVICE_TEST, "--ignored", "--nocapture"])
            .env(SERVICE_VARIABLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut service = Self { child, stdin, stdout, url: String::new() };
        service.url = service.read_line(ADDRESS_LABEL);
        service
    }

    /// Asks the service for its measurements and reads the response.
    fn read_figures(&mut self) -> Figures {
        self.stdin.write_all(b"?").unwrap();
        let line = self.read_line(FIGURES_LABEL);
        let mut figures = line.split_whitespace().map(|figure| figure.parse::<u64>().unwrap());
        let mut next = || figures.next().unwrap();
        Figures {
            announced_count: usize::try_from(next()).unwrap(),
            peak_bytes: next(),
            cpu_milliseconds: next(),
        }
    }

    /// Reads lines until one contains `label`, and returns the text after the label.
    fn read_line(&mut self, label: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the service ended unexpectedly");
            if let Some((_, rest)) = line.split_once(label) {
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
#[ignore = "the overload test starts it in a separate process"]
async fn service_process() {
    if env::var_os(SERVICE_VARIABLE).is_none() {
        return;
    }
    let app = TestApp::start(settings()).await;
    println!("{ADDRESS_LABEL} {}", app.url("/preprocess"));
    let resident_before = reset_peak_resident_bytes();
    let (mut count_before, mut cpu_start) = (0, ProcessTime::now());
    // The loop ends when the process of the test closes the pipe.
    loop {
        let read = tokio::task::spawn_blocking(|| std::io::stdin().read_exact(&mut [0])).await.unwrap();
        if read.is_err() {
            return;
        }
        let announced_count = app.topic.published().len();
        let peak = peak_resident_bytes().saturating_sub(resident_before);
        let milliseconds = cpu_start.elapsed().as_millis();
        println!("{FIGURES_LABEL} {} {peak} {milliseconds}", announced_count - count_before);
        (count_before, cpu_start) = (announced_count, ProcessTime::now());
    }
}

/// A phase of the test with a constant load.
#[derive(Clone, Copy)]
struct Phase {
    name: &'static str,
    /// Number of senders. Each sender waits for the response to an upload before it sends the next upload.
    sender_count: usize,
    /// True if a refused sender waits as long as the header Retry-After says, false if it retries at once.
    respects_retry_after: bool,
}

const PHASES: [Phase; 4] = [
    Phase { name: "warm", sender_count: MAX_IMAGES / 2, respects_retry_after: true },
    Phase { name: "unloaded", sender_count: MAX_IMAGES / 2, respects_retry_after: true },
    Phase {
        name: "overloaded by senders that respect Retry-After",
        sender_count: 10 * MAX_IMAGES,
        respects_retry_after: true,
    },
    Phase {
        name: "overloaded by senders that retry at once",
        sender_count: 10 * MAX_IMAGES,
        respects_retry_after: false,
    },
];

/// Numbers of responses in a phase.
struct ResponseCounts {
    stored: usize,
    /// Number of stored uploads whose response arrived before the end of the phase.
    stored_in_time: usize,
    refused: usize,
}

/// Sends uploads from several senders until the end of the phase. All uploads differ, because a duplicate
/// needs less work.
async fn run_phase(url: &str, files: &Arc<Vec<Vec<u8>>>, phase: Phase) -> ResponseCounts {
    let Phase { name, sender_count, respects_retry_after } = phase;
    let client = reqwest::Client::new();
    let [stored, stored_in_time, refused] = std::array::from_fn(|_| Arc::new(AtomicUsize::new(0)));
    let end = Instant::now() + PHASE_DURATION;
    let mut senders = JoinSet::new();
    for sender in 0..sender_count {
        let (client, url, files) = (client.clone(), url.to_owned(), Arc::clone(files));
        let [stored, stored_in_time, refused] = [&stored, &stored_in_time, &refused].map(Arc::clone);
        senders.spawn(async move {
            let mut number = sender;
            while Instant::now() < end {
                let mut body = files[number % files.len()].clone();
                body.extend(format!("{name} {sender} {number}").bytes());
                let request = client.post(&url).header("content-type", "image/jpeg").body(body);
                let response = request.send().await.unwrap();
                match response.status().as_u16() {
                    200 => {
                        stored_in_time.fetch_add(usize::from(Instant::now() < end), Ordering::SeqCst);
                        stored.fetch_add(1, Ordering::SeqCst)
                    }
                    429 => refused.fetch_add(1, Ordering::SeqCst),
                    other => panic!("status {other}"),
                };
                let pause =
                    response.headers().get("retry-after").map(|seconds| seconds.to_str().unwrap().parse());
                response.bytes().await.unwrap();
                if let Some(pause) = pause.filter(|_| respects_retry_after) {
                    let retry_at = Instant::now() + Duration::from_secs(pause.unwrap());
                    tokio::time::sleep_until(retry_at.min(end).into()).await;
                }
                number += 1;
            }
        });
    }
    while let Some(result) = senders.join_next().await {
        result.unwrap();
    }
    let [stored, stored_in_time, refused] =
        [stored, stored_in_time, refused].map(|count| count.load(Ordering::SeqCst));
    ResponseCounts { stored, stored_in_time, refused }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overloaded_service_responds_to_every_upload_within_its_memory() {
    let samples = ["coffee.jpg", "rocket.jpg", "chelsea.jpg", "coffee.jpg", "rocket.jpg"].map(read_sample);
    let files: Vec<_> = samples.into_iter().chain([photo(1633, 1225), photo(4000, 3000)]).collect();
    let files = Arc::new(files);
    let mut service = Service::start();
    let url = service.url.clone();
    let mut unloaded_rate = 0.0;
    for phase in PHASES {
        let ResponseCounts { stored, stored_in_time, refused } = run_phase(&url, &files, phase).await;
        let figures = service.read_figures();
        let rate = stored_in_time as f64 / PHASE_DURATION.as_secs_f64();
        if phase.sender_count < MAX_IMAGES {
            unloaded_rate = rate;
        }
        let cpu_time = figures.cpu_milliseconds as f64 / stored as f64;
        let (name, share, peak) = (phase.name, 100.0 * rate / unloaded_rate, figures.peak_bytes >> 10);
        println!(
            "{name}: {stored} stored, {refused} refused, {rate:.1} per second ({share:.0} %), \
             {cpu_time:.2} ms of CPU per image, {peak} KiB peak"
        );
        // Every upload that got a 200 response was announced once. Refused uploads were not announced.
        assert_eq!(figures.announced_count, stored, "{name}");
        assert_eq!(refused > 0, phase.sender_count > MAX_IMAGES, "{name}: {refused} refused");
        let max_bytes = settings().preprocess_max_memory as u64 + SLACK_BYTES;
        assert!(figures.peak_bytes <= max_bytes, "{name}: {} of {max_bytes} bytes", figures.peak_bytes);
    }
}
