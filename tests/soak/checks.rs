//! Checks the log while the program runs, and every accepted upload at the end.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::{self, Display},
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    Soak,
    bombs::Bomb,
    clients::{self, PredictionAnswer},
};

/// Maximum resident memory of a process, in KiB.
pub(crate) const MAX_MEMORY_KIB: u64 = 512 << 10;
/// Maximum length of a line of the log and of the response to an invalid request, in bytes.
pub(crate) const MAX_TEXT: usize = 8 << 10;
/// Time for all uploads to be checked. The checks of a busy program take seconds.
const CHECK_TIMEOUT: Duration = Duration::from_secs(300);
/// Number of uploads that are checked at the same time.
const CHECK_TASKS: usize = 8;
/// Number of examples that are kept of each kind of violation.
const MAX_EXAMPLES: usize = 5;
/// Number of lines of the log that are printed after an unexpected end of the program.
const LAST_LINES: usize = 5;

/// Name of the event that a request gets no answer, because the connection fails or the client gives up.
pub(crate) const NO_ANSWER: &str = "no answer";
/// Name of the event that a request is not sent, because no process accepts the connection.
pub(crate) const NOT_SENT: &str = "not sent";
/// Name of the event that a request with an unfinished body is neither refused nor cut off.
pub(crate) const HELD: &str = "held";

/// Counts events by name.
#[derive(Default)]
pub(crate) struct Tally(Mutex<BTreeMap<String, usize>>);

impl Tally {
    pub(crate) fn add(&self, name: impl Into<String>) {
        *self.0.lock().unwrap().entry(name.into()).or_default() += 1;
    }

    fn has(&self, predicate: impl Fn(&str) -> bool) -> bool {
        self.0.lock().unwrap().keys().any(|name| predicate(name))
    }

    /// Returns true if a request was sent.
    fn has_requests(&self) -> bool {
        self.has(|name| name != NOT_SENT)
    }

    /// Returns true if a request was answered.
    pub(crate) fn has_answers(&self) -> bool {
        self.has(|name| ![NOT_SENT, NO_ANSWER, HELD].contains(&name))
    }
}

impl Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.0.lock().unwrap();
        let texts: Vec<String> = counts.iter().map(|(name, count)| format!("{name}: {count}")).collect();
        formatter.write_str(if texts.is_empty() { "none" } else { "" })?;
        formatter.write_str(&texts.join(", "))
    }
}

/// Counts the outcomes of bombs, by bomb.
pub(crate) struct BombTallies(Vec<(&'static str, Tally)>);

impl BombTallies {
    /// Creates a tally for each bomb.
    pub(crate) fn new(bombs: &[Bomb]) -> Self {
        Self(bombs.iter().map(|bomb| (bomb.name, Tally::default())).collect())
    }

    pub(crate) fn add(&self, bomb: &str, answer: impl Into<String>) {
        let (_, tally) = self.0.iter().find(|(name, _)| *name == bomb).unwrap();
        tally.add(answer);
    }

    /// Returns the names of the bombs that were never sent.
    fn unsent(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().filter(|(_, tally)| !tally.has_requests()).map(|(name, _)| *name)
    }

    fn any(&self, predicate: impl Fn(&Tally) -> bool) -> bool {
        self.0.iter().any(|(_, tally)| predicate(tally))
    }
}

impl Display for BombTallies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(|(name, tally)| format!("{name}: {tally}")).collect();
        formatter.write_str(&texts.join("; "))
    }
}

/// Broken promises, by kind.
#[derive(Default)]
pub(crate) struct Violations(Mutex<BTreeMap<&'static str, Examples>>);

#[derive(Default)]
struct Examples {
    count: usize,
    texts: Vec<String>,
}

impl Violations {
    pub(crate) fn add(&self, kind: &'static str, example: impl Into<String>) {
        let mut kinds = self.0.lock().unwrap();
        let examples = kinds.entry(kind).or_default();
        examples.count += 1;
        if examples.texts.len() < MAX_EXAMPLES {
            examples.texts.push(example.into());
        }
    }

    /// Returns one text per kind, with its number and its first examples.
    pub(crate) fn lines(&self) -> Vec<String> {
        let kinds = self.0.lock().unwrap();
        kinds
            .iter()
            .map(|(kind, examples)| format!("{kind} ({}): {}", examples.count, examples.texts.join("; ")))
            .collect()
    }
}

/// Checks of the log of all processes.
#[derive(Default)]
pub(crate) struct LogChecks {
    pub(crate) violations: Violations,
    /// Lines by severity.
    pub(crate) severities: Tally,
    pub(crate) longest_line: AtomicUsize,
    /// File that receives every line, cut to [`MAX_TEXT`].
    copy: Option<Mutex<File>>,
    last_lines: Mutex<VecDeque<String>>,
}

impl LogChecks {
    /// Creates checks that also copy the log to a file.
    pub(crate) fn new(copy: Option<&Path>) -> Self {
        Self { copy: copy.map(|path| Mutex::new(File::create(path).unwrap())), ..Self::default() }
    }

    /// Reads the log of one process to its end, and checks every line.
    ///
    /// At most [`MAX_TEXT`] bytes of a line are kept. A last line without a newline is not checked, because
    /// the process may have been killed while it wrote the line.
    pub(crate) fn check(&self, log: impl Read) {
        let mut log = BufReader::with_capacity(64 << 10, log);
        let (mut line, mut length) = (Vec::new(), 0);
        while let Ok(chunk) = log.fill_buf()
            && !chunk.is_empty()
        {
            let newline = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..newline.unwrap_or(chunk.len())];
            line.extend_from_slice(&part[..part.len().min(MAX_TEXT.saturating_sub(line.len()))]);
            length += part.len();
            let consumed = part.len() + usize::from(newline.is_some());
            log.consume(consumed);
            if newline.is_some() {
                self.check_line(&line, length);
                line.clear();
                length = 0;
            }
        }
    }

    fn check_line(&self, line: &[u8], length: usize) {
        let text = String::from_utf8_lossy(line);
        let start: String = text.chars().take(300).collect();
        if let Some(copy) = &self.copy {
            copy.lock().unwrap().write_all(&[line, b"\n"].concat()).unwrap();
        }
        self.longest_line.fetch_max(length, Ordering::SeqCst);
        if length > MAX_TEXT {
            self.violations.add("line of the log over 8 KB", format!("{length} bytes: {start}"));
        } else {
            match serde_json::from_slice::<Value>(line) {
                Ok(Value::Object(members)) => {
                    let severity = members.get("severity").and_then(Value::as_str);
                    self.severities.add(severity.unwrap_or("no severity"));
                }
                _ => self.violations.add("line of the log that is not JSON", start.clone()),
            }
        }
        if text.contains("panicked") {
            self.violations.add("panic in the log", start.clone());
        }
        let mut last_lines = self.last_lines.lock().unwrap();
        last_lines.push_back(start);
        if last_lines.len() > LAST_LINES {
            last_lines.pop_front();
        }
    }

    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.last_lines.lock().unwrap().iter().cloned().collect()
    }
}

/// Asks for the prediction of every accepted upload, and reports those that are missing or wrong.
pub(crate) async fn check_every_upload(soak: &Arc<Soak>) {
    let uploads = Arc::new(soak.uploads.accepted());
    let next = Arc::new(AtomicUsize::new(0));
    let deadline = Instant::now() + CHECK_TIMEOUT;
    let mut tasks = JoinSet::new();
    for _ in 0..CHECK_TASKS {
        let (soak, uploads, next) = (soak.clone(), uploads.clone(), next.clone());
        tasks.spawn(async move {
            let http = clients::http_client();
            while let Some(upload) = uploads.get(next.fetch_add(1, Ordering::SeqCst)) {
                let answer = loop {
                    match clients::get_prediction(&soak, &http, upload, 0).await {
                        PredictionAnswer::Refused(pause) if Instant::now() < deadline => {
                            tokio::time::sleep(pause).await;
                        }
                        answer => break answer,
                    }
                };
                if answer != PredictionAnswer::Right {
                    soak.uploads.count_lost();
                    soak.violations.add(
                        "accepted upload without a right prediction",
                        format!("{}: {answer:?}", upload.id),
                    );
                }
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
}

/// Reports each kind of attack and fault that did not happen, although this machine permits it.
///
/// Must be called at the end of the second phase, before the last kill.
pub(crate) fn check_attacks(soak: &Soak) {
    let has_happened = |count: &AtomicUsize| count.load(Ordering::SeqCst) > 0;
    let (disk, connections) = (&soak.disk, &soak.connections);
    let attacks = [
        ("kill -9", has_happened(&soak.program.kill_count)),
        ("full disk", has_happened(&disk.full_count) || !disk.can_fill_up()),
        ("read-only bucket", has_happened(&disk.read_only_count) || !disk.can_become_read_only()),
        ("idle connection", has_happened(&connections.idle.opened)),
        ("slow connection", has_happened(&connections.slow.opened)),
        ("answer to the flood", soak.flood_answers.has_answers()),
        ("answer to a bomb", soak.bomb_answers.any(Tally::has_answers)),
        ("unfinished body that is held", soak.bomb_answers.any(|tally| tally.has(|name| name == HELD))),
    ];
    let missing = attacks.iter().filter(|(_, has_happened)| !has_happened).map(|(name, _)| *name);
    for name in missing.chain(soak.bomb_answers.unsent()) {
        soak.violations.add("never happened", name);
    }
}

/// Reports the violations that only the totals show.
pub(crate) fn check_totals(soak: &Soak) {
    let peak_memory = soak.program.peak_memory.load(Ordering::SeqCst);
    if peak_memory > MAX_MEMORY_KIB {
        let megabytes = |kibibytes| kibibytes / 1024;
        soak.violations.add(
            "too much memory",
            format!("{} MiB, at most {} MiB", megabytes(peak_memory), megabytes(MAX_MEMORY_KIB)),
        );
    }
    if soak.uploads.accepted().is_empty() {
        soak.violations.add("no upload was accepted", "");
    }
}
