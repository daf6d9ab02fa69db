//! The engines: made, compared on one picture, and then measured in turns.

use std::time::Duration;

use classify::{backend::Backend, model::spec};
use cnn_kernels::Isa;

use crate::{
    Effort, Subject,
    ceiling::Ceiling,
    figures::Series,
    in_process::{self, Tract},
    machine::locked_version,
    peers_folder, skipped,
    worker::Worker,
};

/// Logits further apart than this are another network's, or another arithmetic's.
const TOLERANCE: f32 = 1e-3;

/// On how many threads an engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setup {
    /// Threads that share an image.
    pub(crate) threads: usize,
    /// Images at once, each on threads of its own.
    pub(crate) instances: usize,
}

/// An image after the other on one thread.
pub(crate) const ONE_THREAD: Setup = Setup { threads: 1, instances: 1 };
/// An image after the other, each on both threads.
pub(crate) const SHARED_IMAGE: Setup = Setup { threads: 2, instances: 1 };
/// Two images at once, each on one thread.
pub(crate) const TWO_IMAGES: Setup = Setup { threads: 1, instances: 2 };

/// An engine that holds the network and the picture.
pub(crate) trait Engine {
    /// The outputs for the picture.
    fn logits(&mut self) -> Vec<f32>;

    /// Every instance runs so many times.
    fn run(&mut self, times: usize) -> Run;
}

/// What a run took.
pub(crate) struct Run {
    /// From the first start to the last end.
    pub(crate) wall: Duration,
    /// Each forward pass of each instance.
    pub(crate) durations: Vec<Duration>,
}

/// An engine in one setup, with what it took so far.
pub(crate) struct Contender {
    pub(crate) setup: Setup,
    engine: Box<dyn Engine>,
    /// Runs a round.
    times: usize,
    /// Milliseconds of an image: each round's median.
    pub(crate) medians: Series,
    /// Milliseconds of an image: each round's least.
    pub(crate) least: Series,
    /// Images per second, one figure a round.
    pub(crate) throughput: Series,
}

impl Contender {
    pub(crate) fn new(setup: Setup, engine: Box<dyn Engine>) -> Self {
        let (medians, least, throughput) = Default::default();
        Self { setup, engine, times: 1, medians, least, throughput }
    }

    /// Runs until it is warm, and finds out how many runs fill `slice`.
    fn warm_up(&mut self, slice: Duration) {
        if slice.is_zero() {
            return;
        }
        self.engine.run(5);
        let run = self.engine.run(5);
        let times = slice.as_nanos() * 5 / run.wall.as_nanos().max(1);
        self.times = usize::try_from(times).unwrap().max(3);
    }

    fn round(&mut self) {
        let Run { wall, durations } = self.engine.run(self.times);
        self.throughput.add(durations.len() as f64 / wall.as_secs_f64());
        let durations: Series = durations.iter().map(|duration| duration.as_secs_f64() * 1e3).collect();
        self.medians.add(durations.median());
        self.least.add(durations.least());
    }
}

/// What runs networks, in every setup that it knows.
pub(crate) struct Candidate {
    pub(crate) name: String,
    /// Whether it is this project's.
    pub(crate) ours: bool,
    /// Whether it is kept from using AVX-512.
    pub(crate) limited: bool,
    pub(crate) contenders: Vec<Contender>,
    /// Largest difference of a logit to [`Measured::reference`].
    pub(crate) difference: f32,
}

impl Candidate {
    pub(crate) fn of(&self, setup: Setup) -> Option<&Contender> {
        self.contenders.iter().find(|contender| contender.setup == setup)
    }

    /// The setup with two threads that does the most images per second.
    pub(crate) fn best_of_two_threads(&self) -> Option<&Contender> {
        let two_threads = self.contenders.iter().filter(|contender| contender.setup != ONE_THREAD);
        two_threads.max_by(|one, other| one.throughput.median().total_cmp(&other.throughput.median()))
    }
}

/// What came of it.
pub(crate) struct Measured {
    pub(crate) candidates: Vec<Candidate>,
    /// Whose logits the others are compared with.
    pub(crate) reference: String,
    pub(crate) ceiling: Ceiling,
    /// Floating-point operations of the network, by its ONNX file.
    pub(crate) flops: Option<usize>,
}

/// Everything that is there, the peers first.
fn candidates(subject: &Subject, notes: &mut Vec<String>) -> (Vec<Candidate>, Option<usize>) {
    let mut candidates = Vec::new();
    let mut add = |name: String, ours, limited, contenders| {
        candidates.push(Candidate { name, ours, limited, contenders, difference: 0.0 });
    };
    let mut flops = None;
    if let Some(onnx) = &subject.onnx {
        for (name, script) in [("onnxruntime", "ort.py"), ("OpenVINO", "openvino_worker.py")] {
            match Worker::start_all(script, onnx, &subject.nchw) {
                Some((version, contenders)) => add(format!("{name} {version}"), false, false, contenders),
                None => skipped(notes, &format!("{name}: benches/peers/install gets it")),
            }
        }
        if Isa::detect().name() == "avx512" {
            let copy = peers_folder().join("avx2").is_dir();
            match copy.then(|| Worker::start_all("ort_avx2.py", onnx, &subject.nchw)).flatten() {
                Some((version, contenders)) => {
                    add(format!("onnxruntime {version} without AVX-512"), false, true, contenders);
                }
                None => skipped(notes, "onnxruntime without AVX-512: benches/peers/install gets it"),
            }
        }
        if cfg!(debug_assertions) {
            skipped(notes, "tract: not optimised, as here, it takes a second for an image");
        } else {
            let tract = Tract::load(onnx);
            flops = Some(tract.flops());
            let name = format!("tract {}", locked_version("tract-onnx"));
            add(name, false, false, tract.contenders(subject));
        }
    }
    for backend in Backend::cpus() {
        for isa in in_process::instructions(backend) {
            let on = isa.map(|isa| format!(" on {isa}")).unwrap_or_default();
            let name = format!("this project: {backend}{on}");
            let limited = isa.is_some_and(|isa| isa < Isa::detect());
            add(name, true, limited, in_process::native(backend, isa, subject));
        }
    }
    (candidates, flops)
}

/// Fails unless every engine computes the same; says whose logits the others are compared with.
fn compare(candidates: &mut [Candidate]) -> String {
    let reference = candidates[0].name.clone();
    let expected = candidates[0].contenders[0].engine.logits();
    for Candidate { name, contenders, difference, .. } in candidates {
        for contender in contenders {
            let logits = contender.engine.logits();
            assert_eq!(logits.len(), expected.len(), "{name}");
            let pairs = logits.iter().zip(&expected);
            let apart = pairs.map(|(logit, expected)| (logit - expected).abs()).fold(0.0, f32::max);
            assert!(
                apart <= TOLERANCE,
                "{name}: logits are {apart:e} from those of {reference}: is the ONNX file the one that was \
                 compiled in, {} of SHA-256 {}?",
                spec::NAME,
                spec::ONNX_SHA256
            );
            *difference = difference.max(apart);
        }
    }
    reference
}

/// Compares what the engines compute, then lets them run in turns.
pub(crate) fn measure(subject: &Subject, effort: &Effort, notes: &mut Vec<String>) -> Measured {
    let (mut candidates, flops) = candidates(subject, notes);
    let reference = compare(&mut candidates);
    let mut contenders: Vec<&mut Contender> =
        candidates.iter_mut().flat_map(|candidate| &mut candidate.contenders).collect();
    contenders.iter_mut().for_each(|contender| contender.warm_up(effort.engine_slice));
    let mut ceiling = Ceiling::default();
    for _ in 0..effort.engine_rounds {
        ceiling.round();
        contenders.iter_mut().for_each(|contender| contender.round());
        // So that nobody always runs behind the same other.
        contenders.reverse();
    }
    Measured { candidates, reference, ceiling, flops }
}
