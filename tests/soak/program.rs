//! Runs the program, kills it, and starts it again.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{Soak, checks::LogChecks};

/// Limit of open file descriptors of the program, the default of most systems.
const DESCRIPTOR_LIMIT: u32 = 1024;
/// Drain timeout of both services, their default.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);
/// Maximum time from SIGTERM until the process has ended: the drain timeout and one second. Without
/// optimisation, the program competes with the soak for the cores and gets three seconds more.
pub(crate) const MAX_SHUTDOWN: Duration = Duration::from_secs(if cfg!(debug_assertions) { 12 } else { 9 });
/// Time after which a process that ignores SIGTERM is killed.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum time from the start of a process until both services are ready.
pub(crate) const MAX_START: Duration = Duration::from_secs(60);
/// Interval at which the supervisor measures the process.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Pause before the start that follows an unexpected end.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// One of the two services of the program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Service {
    /// Position of the service in [`Program::services`].
    pub(crate) index: usize,
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// Route that accepts pictures.
    pub(crate) route: &'static str,
}

impl Service {
    pub(crate) fn url(self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// The time between the start and the end of one process.
pub(crate) struct Life {
    pub(crate) number: usize,
    pub(crate) start: Instant,
    /// Time at which the process was killed, received SIGTERM, or ended by itself.
    pub(crate) end: OnceLock<Instant>,
    /// Services that have answered `GET /ready` with 200.
    pub(crate) is_ready: [AtomicBool; 2],
}

/// An order to the supervisor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Kill the process and start the next one.
    Kill,
    /// End the process with SIGTERM, and end the supervisor.
    Stop,
}

/// The program, whose processes run one after the other, and the measurements of the supervisor.
pub(crate) struct Program {
    pub(crate) services: [Service; 2],
    data_folder: PathBuf,
    life: Mutex<Arc<Life>>,
    /// Channel without a buffer, so that an order is sent when the supervisor accepts it.
    orders: SyncSender<Order>,
    are_kills_allowed: AtomicBool,
    pub(crate) log: Arc<LogChecks>,
    pub(crate) kill_count: AtomicUsize,
    /// Duration of every end after SIGTERM.
    pub(crate) shutdowns: Mutex<Vec<Duration>>,
    /// Processes that ended by themselves while the disk was healthy, and while it was not.
    pub(crate) unexpected_end_count: AtomicUsize,
    pub(crate) end_count_on_broken_disk: AtomicUsize,
    /// Maximum resident memory of all processes, in KiB.
    pub(crate) peak_memory: AtomicU64,
}

impl Program {
    /// Chooses free ports. The program starts when [`spawn_supervisor`] gets the receiver of the orders.
    pub(crate) fn new(data_folder: PathBuf, log: LogChecks) -> (Self, Receiver<Order>) {
        let service = |index, name, route| Service { index, name, address: free_address(), route };
        let (orders, receiver) = sync_channel(0);
        let program = Self {
            services: [service(0, "preprocess", "/preprocess"), service(1, "classify", "/classify")],
            data_folder,
            life: Mutex::new(Arc::new(new_life(0))),
            orders,
            are_kills_allowed: AtomicBool::new(false),
            log: Arc::new(log),
            kill_count: AtomicUsize::new(0),
            shutdowns: Mutex::default(),
            unexpected_end_count: AtomicUsize::new(0),
            end_count_on_broken_disk: AtomicUsize::new(0),
            peak_memory: AtomicU64::new(0),
        };
        (program, receiver)
    }

    pub(crate) fn preprocess(&self) -> Service {
        self.services[0]
    }

    pub(crate) fn classify(&self) -> Service {
        self.services[1]
    }

    /// Returns the life of the process that runs now or that will start next.
    pub(crate) fn life(&self) -> Arc<Life> {
        self.life.lock().unwrap().clone()
    }

    pub(crate) fn allow_kills(&self, are_allowed: bool) {
        self.are_kills_allowed.store(are_allowed, Ordering::SeqCst);
    }

    /// Gives an order to the supervisor and waits until the supervisor accepts it.
    ///
    /// Does nothing if the supervisor has panicked. The end of the soak reports the panic.
    pub(crate) fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    fn start_process(&self, number: usize) -> Process {
        let drain_seconds = DRAIN_TIMEOUT.as_secs().to_string();
        let mut child = Command::new("sh")
            .args(["-c", &format!("ulimit -n {DESCRIPTOR_LIMIT} && exec \"$0\" \"$@\"")])
            .arg(env!("CARGO_BIN_EXE_image-pipeline"))
            .args(["--log-format", "json"])
            .args(["--preprocess-port", &self.preprocess().address.port().to_string()])
            .args(["--classify-port", &self.classify().address.port().to_string()])
            .args(["--preprocess-drain-timeout", &drain_seconds])
            .args(["--classify-drain-timeout", &drain_seconds])
            .arg("--data-dir")
            .arg(&self.data_folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let log = self.log.clone();
        let log_reader = Some(thread::spawn(move || log.check(stderr)));
        *self.life.lock().unwrap() = Arc::new(new_life(number));
        Process { child, log_reader }
    }

    fn measure_memory(&self, process: &Process) {
        let path = format!("/proc/{}/status", process.child.id());
        let status = fs::read_to_string(path).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().split(' ').next());
        // A process that has ended has no VmHWM.
        if let Some(peak) = peak {
            self.peak_memory.fetch_max(peak.parse().unwrap(), Ordering::SeqCst);
        }
    }
}

/// A process of the program. Dropping this value kills the process.
struct Process {
    child: Child,
    /// Thread that checks the log. `None` after the process has ended.
    log_reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Sends SIGKILL, as `kill -9` does, and waits for the end.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.join_log_reader();
    }

    /// Returns the exit status if the process has ended. All lines of its log have been checked then.
    fn try_wait(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().unwrap()?;
        self.join_log_reader();
        Some(status)
    }

    /// Waits until the log of the ended process is checked to its end.
    fn join_log_reader(&mut self) {
        if let Some(log_reader) = self.log_reader.take() {
            log_reader.join().unwrap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both calls fail if the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn new_life(number: usize) -> Life {
    Life { number, start: Instant::now(), end: OnceLock::new(), is_ready: Default::default() }
}

/// Returns a loopback address with a free port.
///
/// The port is below the ephemeral ports. Otherwise, an outgoing connection could get this port while the
/// program does not run.
fn free_address() -> SocketAddr {
    loop {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(20_000..30_000)));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Starts the thread that keeps the program running until it receives [`Order::Stop`].
pub(crate) fn spawn_supervisor(
    soak: &Arc<Soak>,
    orders: Receiver<Order>,
    rng: fastrand::Rng,
) -> JoinHandle<()> {
    let soak = soak.clone();
    thread::spawn(move || Supervisor { soak, orders, rng }.run())
}

struct Supervisor {
    soak: Arc<Soak>,
    orders: Receiver<Order>,
    rng: fastrand::Rng,
}

/// Reason why the supervisor stopped watching a process.
enum Ended {
    Killed,
    Terminated,
    /// The process ended by itself.
    ByItself(ExitStatus),
    Stopped,
}

impl Supervisor {
    fn run(mut self) {
        for number in 1.. {
            let mut process = self.soak.program.start_process(number);
            let life = self.soak.program.life();
            let ended = self.watch(&mut process, &life);
            let _ = life.end.set(Instant::now());
            match ended {
                Ended::Killed => {
                    process.kill();
                    self.soak.program.kill_count.fetch_add(1, Ordering::SeqCst);
                }
                Ended::Terminated => self.terminate(process),
                Ended::ByItself(status) => {
                    self.report_unexpected_end(status);
                    thread::sleep(RESTART_PAUSE);
                }
                Ended::Stopped => {
                    self.terminate(process);
                    return;
                }
            }
        }
    }

    /// Measures a process until it ends or must end.
    fn watch(&mut self, process: &mut Process, life: &Life) -> Ended {
        let soak = self.soak.clone();
        let program = &soak.program;
        let mut planned_end = None;
        loop {
            program.measure_memory(process);
            if let Some(status) = process.try_wait() {
                return Ended::ByItself(status);
            }
            match self.orders.recv_timeout(POLL_INTERVAL) {
                Ok(Order::Kill) => return Ended::Killed,
                Ok(Order::Stop) => return Ended::Stopped,
                // The sender is part of the soak, so the channel cannot be closed.
                Err(_) => {}
            }

            let is_ready = life.is_ready.iter().all(|is_ready| is_ready.load(Ordering::SeqCst));
            if !is_ready && life.start.elapsed() > MAX_START {
                let number = life.number;
                soak.violations.add("not ready in time", format!("process {number} after {MAX_START:?}"));
                return Ended::Killed;
            }
            if is_ready && program.are_kills_allowed.load(Ordering::SeqCst) {
                let planned_end =
                    *planned_end.get_or_insert_with(|| Instant::now() + self.lifetime(life.number));
                if Instant::now() >= planned_end {
                    return if life.number % 5 == 2 { Ended::Terminated } else { Ended::Killed };
                }
            }
        }
    }

    /// Returns the time from readiness to the end of a process.
    ///
    /// Every fourth process lives long enough for slow effects, such as timeouts of connections.
    fn lifetime(&mut self, number: usize) -> Duration {
        let milliseconds = if number % 4 == 3 { 15_000..30_000 } else { 3_000..10_000 };
        Duration::from_millis(self.rng.u64(milliseconds))
    }

    /// Sends SIGTERM and measures how long the process takes to end.
    fn terminate(&self, mut process: Process) {
        let start = Instant::now();
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", process.child.id())]).status();
        assert!(sent.unwrap().success(), "cannot send SIGTERM");
        while process.try_wait().is_none() {
            self.soak.program.measure_memory(&process);
            if start.elapsed() > SHUTDOWN_TIMEOUT {
                process.child.kill().unwrap();
            }
            thread::sleep(POLL_INTERVAL);
        }
        let duration = start.elapsed();
        self.soak.program.shutdowns.lock().unwrap().push(duration);
        if duration > MAX_SHUTDOWN {
            self.soak.violations.add(
                "slow end after SIGTERM",
                format!("{:.1} s, at most {} s", duration.as_secs_f64(), MAX_SHUTDOWN.as_secs()),
            );
        }
    }

    fn report_unexpected_end(&self, status: ExitStatus) {
        let program = &self.soak.program;
        if self.soak.disk.is_broken() {
            program.end_count_on_broken_disk.fetch_add(1, Ordering::SeqCst);
        } else {
            program.unexpected_end_count.fetch_add(1, Ordering::SeqCst);
            let last_lines = program.log.last_lines().join("\n    ");
            self.soak
                .violations
                .add("the program ended by itself", format!("{status}; last lines:\n    {last_lines}"));
        }
    }
}
