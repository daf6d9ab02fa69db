//! Starts the inference engines, compares their logits for one picture, measures the engines in interleaved
//! rounds and formats the results as tables.

use std::{fs, path::Path, process::Command, sync::Barrier, thread, time::Instant};

use bench_harness::{Contender, Measurement, Series, Worker, machine, markdown, peers_folder, python};
use bench_harness::{report_skipped, run_interleaved};
use classify::{
    backend::Backend,
    model::{INPUT_SHAPE, spec},
};
use cnn_kernels::{Isa, ceiling};

use crate::{Effort, Subject, engine_worker};

/// Largest accepted difference between the same logit of two engines. A larger difference means that an
/// engine runs a different network or uses a different precision.
const TOLERANCE: f32 = 1e-3;
/// Number of iterations of the multiply-add loop that measures the speed of a core. With this number, the
/// loop takes a few hundred microseconds.
const MULTIPLY_ADD_ITERATIONS: usize = 200_000;
/// Name of the only job that the workers run.
const PICTURE_JOB: &str = "picture";

/// Division of an engine's threads among images.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Setup {
    /// Number of threads that compute one image together.
    thread_count: usize,
    /// Number of instances of the engine. Each computes one image at a time, on threads of its own.
    instance_count: usize,
}

/// One thread computes one image.
const ONE_THREAD: Setup = Setup { thread_count: 1, instance_count: 1 };
/// Two threads compute one image together.
const SHARED_IMAGE: Setup = Setup { thread_count: 2, instance_count: 1 };
/// Two threads compute one image each.
const TWO_IMAGES: Setup = Setup { thread_count: 1, instance_count: 2 };

/// An engine and its measurements in every setup that it supports.
struct Candidate {
    name: String,
    /// True if the engine belongs to this project.
    is_ours: bool,
    /// True if the engine is kept from using the widest instruction set of the CPU.
    is_limited: bool,
    contenders: Vec<(Setup, Contender)>,
    /// Largest difference between a logit of this engine and the same logit of the first candidate.
    difference: f32,
}

impl Candidate {
    /// Returns the measurement in a setup, or `None` if the engine does not support the setup.
    fn measurement(&self, setup: Setup) -> Option<&Measurement> {
        let (_, contender) = self.contenders.iter().find(|(measured, _)| *measured == setup)?;
        contender.measurements[0].as_ref()
    }

    /// Returns the setup with two threads that has the highest throughput, and its measurement.
    fn best_on_two_threads(&self) -> Option<(Setup, &Measurement)> {
        let setups = [SHARED_IMAGE, TWO_IMAGES].into_iter();
        let measured = setups.filter_map(|setup| Some((setup, self.measurement(setup)?)));
        measured.max_by(|(_, a), (_, b)| a.throughput.median().total_cmp(&b.throughput.median()))
    }
}

/// Starts one worker of an engine per setup. Returns the engine's name as the workers report it, and the
/// workers.
///
/// `folder` is the working folder of the workers, and `input_file` is the file in it that holds the picture.
/// `command` returns the command of a worker without the arguments that select the setup.
fn start_workers(
    setups: &[Setup],
    folder: &Path,
    input_file: &str,
    command: impl Fn() -> Command,
) -> (String, Vec<(Setup, Contender)>) {
    let start_worker = |&setup: &Setup| {
        let mut command = command();
        let counts = [setup.thread_count, setup.instance_count];
        command.args(counts.map(|count| count.to_string())).current_dir(folder);
        let mut worker = Worker::start(&mut command).unwrap();
        worker.load(PICTURE_JOB, &format!("{input_file} {}", INPUT_SHAPE[2])).unwrap();
        (setup, Contender { worker, measurements: Vec::new() })
    };
    let contenders: Vec<_> = setups.iter().map(start_worker).collect();
    (contenders[0].1.worker.name().to_owned(), contenders)
}

/// Starts every installed engine. The engines of this project come last.
fn start_candidates(subject: &Subject, folder: &Path, notes: &mut Vec<String>) -> Vec<Candidate> {
    let tensor_bytes: Vec<u8> = subject.input_tensor.iter().flat_map(|value| value.to_le_bytes()).collect();
    fs::write(folder.join("input.f32"), tensor_bytes).unwrap();
    fs::write(folder.join("crop.rgb"), subject.crop.bytes()).unwrap();

    let setups = [ONE_THREAD, SHARED_IMAGE, TWO_IMAGES];
    let mut candidates = Vec::new();
    let mut add = |name: String, is_ours, is_limited, contenders| {
        candidates.push(Candidate { name, is_ours, is_limited, contenders, difference: 0.0 });
    };
    if let Some(onnx_path) = &subject.onnx_path {
        let without_avx512 = peers_folder("peers").join("avx2");
        for (name, engine, is_limited) in [
            ("onnxruntime", "onnxruntime", false),
            ("OpenVINO", "openvino", false),
            ("onnxruntime without AVX-512", "onnxruntime", true),
        ] {
            if is_limited && Isa::detect().name() != "avx512" {
                continue;
            }
            if python("peers", "engines.py").is_none() || is_limited && !without_avx512.is_dir() {
                report_skipped(notes, &format!("{name}: benches/peers/install installs it"));
                continue;
            }
            let (version, contenders) = start_workers(&setups, folder, "input.f32", || {
                let mut command = python("peers", "engines.py").unwrap();
                command.arg(engine).arg(onnx_path);
                if is_limited {
                    command.env("PEERS_PACKAGES", &without_avx512);
                }
                command
            });
            let suffix = if is_limited { " without AVX-512" } else { "" };
            add(format!("{version}{suffix}"), false, is_limited, contenders);
        }
        if cfg!(debug_assertions) {
            report_skipped(notes, "tract: an unoptimised build takes a second per image");
        } else {
            let command = || engine_worker::command("tract", onnx_path.to_str().unwrap());
            let (_, contenders) = start_workers(&[ONE_THREAD, TWO_IMAGES], folder, "input.f32", command);
            add(machine::locked_crate("tract-onnx").replace("-onnx", ""), false, false, contenders);
        }
    }
    for backend in Backend::cpu_backends() {
        for isa in instruction_sets(backend) {
            let isa_name = isa.map_or("default", Isa::name);
            let command = || engine_worker::command(backend.name(), isa_name);
            let (_, contenders) = start_workers(&setups, folder, "crop.rgb", command);
            let suffix = isa.map(|isa| format!(" on {isa}")).unwrap_or_default();
            let is_limited = isa.is_some_and(|isa| isa < Isa::detect());
            add(format!("this project: {backend}{suffix}"), true, is_limited, contenders);
        }
    }
    candidates
}

/// Returns the instruction sets with which a backend is measured, the widest first.
///
/// If the backend cannot choose its instruction set, the only entry is `None`.
fn instruction_sets(backend: Backend) -> Vec<Option<Isa>> {
    if backend.kernel_isa(None).is_none() {
        return vec![None];
    }
    let mut isas: Vec<Option<Isa>> = Isa::available().map(Some).collect();
    isas.reverse();
    // The last entry is plain Rust. It is measured only on a CPU that supports no other instruction set.
    if isas.len() > 1 {
        isas.pop();
    }
    isas
}

/// Compares the logits of every engine with the logits of the first candidate and stores the largest
/// difference.
///
/// # Panics
/// Panics if a difference exceeds [`TOLERANCE`].
fn compare_logits(candidates: &mut [Candidate], folder: &Path) {
    let mut first_candidate = None;
    for Candidate { name, contenders, difference, .. } in candidates {
        for (_, contender) in contenders {
            let bytes = contender.worker.result(PICTURE_JOB, folder).unwrap();
            let logits: Vec<f32> =
                bytes.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect();
            let (first_name, expected) =
                first_candidate.get_or_insert_with(|| (name.clone(), logits.clone()));
            assert_eq!(
                logits.len(),
                expected.len(),
                "{name}: number of logits (left) is not the expected number (right)"
            );
            let pairs = logits.iter().zip(expected);
            let largest = pairs.map(|(logit, expected)| (logit - *expected).abs()).fold(0.0, f32::max);
            assert!(
                largest <= TOLERANCE,
                "{name}: a logit differs by {largest:e} from the logit of {first_name}, expected at most \
                 {TOLERANCE:e}; is the ONNX file that of the compiled-in model {}, with the SHA-256 {}?",
                spec::NAME,
                spec::ONNX_SHA256
            );
            *difference = difference.max(largest);
        }
    }
}

/// Compares the logits of all engines, measures the engines and returns the tables.
pub(crate) fn measure(subject: &Subject, effort: &Effort, notes: &mut Vec<String>) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let mut candidates = start_candidates(subject, folder.path(), notes);
    compare_logits(&mut candidates, folder.path());
    let contenders = candidates.iter_mut().flat_map(|candidate| &mut candidate.contenders);
    let mut contenders: Vec<&mut Contender> = contenders.map(|(_, contender)| contender).collect();
    for Contender { worker, measurements } in &mut contenders {
        measurements
            .push(Some(Measurement::prepare(worker, PICTURE_JOB, effort.engine_round_duration).unwrap()));
    }
    let (mut gflops_alone, mut gflops_beside_another) = (Series::default(), Series::default());
    run_interleaved(effort.engine_rounds, 1, contenders, || {
        gflops_alone.add(measure_core_gflops());
        gflops_beside_another.add(measure_gflops_of_two_cores());
    });
    let flops =
        subject.onnx_path.as_deref().filter(|_| !cfg!(debug_assertions)).map(engine_worker::count_flops);

    let peak = flops.map(|flops| (flops as f64 / 1e6, gflops_alone.max()));
    let mut pieces = vec![figures_table(&candidates, peak)];
    pieces.extend(ratio_table(&candidates.iter().collect::<Vec<_>>()));
    let limited: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.is_limited).collect();
    pieces.extend(ratio_table(&limited));
    pieces.extend(peak.map(|(mflop, gflops)| {
        format!(
            "The FMA ceiling is the speed of a core in a loop of multiply-adds. On {}, it is {gflops:.0} \
             GFLOP/s alone, and {:.0} GFLOP/s while the other core computes too. According to its ONNX file, \
             the network has {:.3} GFLOP: two operations for each product of a weight and a pixel. At the \
             ceiling, these operations take {:.2} ms on one core. This project starts with the bytes of the \
             crop, the peers with the normalised tensor.",
            Isa::detect(),
            gflops_beside_another.max(),
            mflop / 1e3,
            mflop / gflops
        )
    }));
    pieces
}

/// Measures how many GFLOP/s one core reaches in a loop of multiply-adds.
fn measure_core_gflops() -> f64 {
    let start = Instant::now();
    let flops = ceiling::run_multiply_adds(Isa::detect(), MULTIPLY_ADD_ITERATIONS);
    flops as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// Measures how many GFLOP/s each core reaches in the same loop while two cores compute.
fn measure_gflops_of_two_cores() -> f64 {
    let barrier = Barrier::new(2);
    let measure = || {
        barrier.wait();
        measure_core_gflops()
    };
    thread::scope(|scope| {
        let other = scope.spawn(measure);
        (measure() + other.join().unwrap()) / 2.0
    })
}

/// Formats the median latency, followed by the lowest latency in brackets, in milliseconds.
fn format_latency(measurement: &Measurement) -> String {
    format!("{:.2} ({:.2})", measurement.median_duration.median(), measurement.min_duration.min())
}

/// Formats the table with the measurements of all engines.
///
/// `peak` holds the MFLOP of one forward pass and the highest GFLOP/s of a core.
fn figures_table(candidates: &[Candidate], peak: Option<(f64, f64)>) -> String {
    let reference = format!("logits from {}'s", candidates[0].name);
    let columns = [
        "engine",
        "1 thread: ms",
        "images/s",
        "lone image on 2 threads: ms",
        "2 threads: images/s",
        "by",
        &reference,
        "of the FMA ceiling",
    ];
    let rows = candidates.iter().map(|candidate| {
        let alone = candidate.measurement(ONE_THREAD);
        let best = candidate.best_on_two_threads();
        let describe_setup =
            |setup| if setup == SHARED_IMAGE { "two threads per image" } else { "one image per thread" };
        let fraction_of_peak =
            peak.zip(alone).map(|((mflop, gflops), alone)| mflop / alone.median_duration.median() / gflops);
        vec![
            Some(candidate.name.clone()),
            alone.map(format_latency),
            alone.map(|alone| alone.throughput.median_and_max(0)),
            candidate.measurement(SHARED_IMAGE).map(format_latency),
            best.map(|(_, best)| best.throughput.median_and_max(0)),
            best.map(|(setup, _)| describe_setup(setup).to_owned()),
            Some(format!("{:.1e}", candidate.difference)),
            fraction_of_peak.map(|fraction| format!("{:.0} %", 100.0 * fraction)),
        ]
    });
    format!("### Engines\n\n{}", markdown::table(columns, rows))
}

/// Formats the table that compares the first engine of this project with the other candidates.
///
/// Returns `None` if there are no other candidates.
fn ratio_table(candidates: &[&Candidate]) -> Option<String> {
    let ours = candidates.iter().find(|candidate| candidate.is_ours)?;
    let latency_ratio = |theirs: &Candidate, setup| {
        let (ours, theirs) = (ours.measurement(setup)?, theirs.measurement(setup)?);
        Some(format!("{:.2}", theirs.median_duration.median() / ours.median_duration.median()))
    };
    let throughput_ratio = |theirs: &Candidate| {
        let ((_, ours), (_, theirs)) = (ours.best_on_two_threads()?, theirs.best_on_two_threads()?);
        Some(format!("{:.2}", ours.throughput.median() / theirs.throughput.median()))
    };
    let others = candidates.iter().filter(|theirs| theirs.name != ours.name);
    let rows: Vec<_> = others
        .map(|theirs| {
            let name = Some(theirs.name.clone());
            let (one_thread, shared) =
                (latency_ratio(theirs, ONE_THREAD), latency_ratio(theirs, SHARED_IMAGE));
            vec![name, one_thread, shared, throughput_ratio(theirs)]
        })
        .collect();
    let columns = ["as", "1 thread", "lone image on 2 threads", "2 threads, images/s"];
    let is_empty = rows.is_empty();
    let table = format!("{}, how many times as fast:\n\n{}", ours.name, markdown::table(columns, rows));
    (!is_empty).then_some(table)
}
