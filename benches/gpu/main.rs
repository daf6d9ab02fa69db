//! Compares the network on this machine's GPU with PyTorch and onnxruntime. `benches/gpu/run` starts this
//! benchmark.
//!
//! Each engine runs in a worker process, as `bench_harness` describes. A run computes one batch. It begins
//! with the pixels in the host's memory and ends when all outputs are in the host's memory.
//!
//! This project's engines are the GPU engines of the service. Before such an engine is measured, its outputs
//! are compared with the outputs of the CPU. While the images per second are measured, the next batch is
//! always submitted before the previous batch is complete, as in the service.
//!
//! The benchmark reads these environment variables:
//!
//! - `GPU_BENCH_SECONDS` is the duration of each measurement in seconds.
//! - `GPU_BENCH_MAX_BATCH` is the largest batch size.
//! - `GPU_BENCH_OUTPUT` is the Markdown file that the report is written to.
//! - `GPU_BENCH_PYTHON` is the Python interpreter in which PyTorch and onnxruntime are installed.
//! - `CLASSIFY_MODEL_ONNX` is the ONNX file for onnxruntime.
//! - `CLASSIFY_ALLOW_SOFTWARE_GPU`, with any value, allows a GPU that is emulated in software.
#![expect(clippy::unwrap_used, reason = "a failure ends the benchmark")]
#![expect(clippy::print_stdout, reason = "the tables are the result")]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use bench_harness::{
    Measurement, Worker, WorkerInstance, is_cargo_bench,
    machine::{self, output_of},
    markdown, repository, script_command, serve,
};
use classify::{
    backend::Backend,
    engine::Infer,
    gpu::{self, GpuEngine},
    model::{GEOMETRY, Network, spec},
    pixels::{Crop, CropShape},
    precision::Precision,
};
use futures_executor::block_on;

/// First argument that makes this program a worker.
const WORKER_ARGUMENT: &str = "--worker";
/// Number of rounds per measurement. The rounds share the time `GPU_BENCH_SECONDS` equally.
const ROUNDS: u32 = 5;
/// Maximum expected difference between an engine's outputs in f32 and the CPU's outputs. The report marks a
/// larger difference.
const TOLERANCE: f32 = 1e-3;
/// Time at the start of a measurement in which the readings of the GPU's utilisation may still include the
/// work before the measurement. The report ignores these readings.
const SETTLING_TIME: Duration = Duration::from_millis(200);

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [argument, backend, precision] = &arguments[..]
        && argument == WORKER_ARGUMENT
    {
        return serve_ours(backend, precision);
    }
    if Backend::gpu_backends().next().is_none() {
        println!("SKIPPED: no backend for a GPU is compiled in (cargo features wgpu, cuda)");
    }
    let engines =
        Backend::gpu_backends().flat_map(|backend| [(backend, Precision::F32), (backend, Precision::F16)]);
    if !is_cargo_bench() {
        for (backend, precision) in engines {
            match open(backend, precision) {
                Ok(description) => println!("{description}"),
                Err(reason) => println!("SKIPPED: {reason}"),
            }
        }
        return;
    }

    let mut report = Report::start();
    for (backend, precision) in engines {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([WORKER_ARGUMENT, backend.name(), precision.name()]);
        report.measure(backend.name(), precision.name(), &mut command, true);
    }
    let python = env::var("GPU_BENCH_PYTHON").unwrap_or("python3".to_owned());
    let onnx_path = match env::var_os("CLASSIFY_MODEL_ONNX") {
        Some(file) => repository().join(file),
        None => repository().join("models").join(spec::NAME).join("model.onnx"),
    };
    for (engine, precision) in [
        ("onnxruntime", "f32"),
        ("PyTorch eager", "f32"),
        ("torch.compile", "f32"),
        ("PyTorch eager", "f16"),
        ("torch.compile", "f16"),
    ] {
        let mut command = script_command(&python, "gpu", "engines.py");
        report.measure(engine, precision, command.args([engine, precision]).arg(&onnx_path), false);
    }
    let text = report.finish();
    println!("{text}");
    let output_path = env::var_os("GPU_BENCH_OUTPUT").unwrap_or("docs/benchmarks/gpu.md".into());
    fs::write(repository().join(output_path), text).unwrap();
}

/// Opens the GPU of a backend and returns a description of it.
///
/// # Errors
/// Returns the reason why the GPU cannot be used.
fn open(backend: Backend, precision: Precision) -> Result<String, String> {
    let allow_software = env::var_os("CLASSIFY_ALLOW_SOFTWARE_GPU").is_some();
    let adapter = gpu::open(backend, precision, allow_software).map_err(|refusal| refusal.to_string())?;
    let warning = if adapter.software { ", **software: the figures do not apply to a GPU**" } else { "" };
    let (model, engine) = (spec::NAME, format!("{backend} in {precision}"));
    Ok(format!("{engine}: {} by {}, {}{warning}; {model}", adapter.name, adapter.api, adapter.driver))
}

/// Runs the service's engine as a worker.
///
/// If a job was loaded by `load JOB BATCH SIDE overlapped`, each run submits a batch and waits for the batch
/// of the previous run. If it was loaded by `load JOB BATCH SIDE`, each run waits for the batch that it
/// submits.
fn serve_ours(backend: &str, precision: &str) {
    let backend = Backend::gpu_backends().find(|candidate| candidate.name() == backend).unwrap();
    let precision =
        [Precision::F32, Precision::F16].into_iter().find(|candidate| candidate.name() == precision).unwrap();
    let name = match open(backend, precision) {
        Ok(name) => name,
        Err(reason) => return println!("error {reason}"),
    };
    let load = |arguments: &[&str]| (cut_crops(arguments[0].parse().unwrap()), arguments.len() == 3);
    let mut engine = None;
    let mut submitted = None;
    let run = move |(batch, overlapped): &(Vec<Crop>, bool)| -> Vec<Vec<f32>> {
        // The network must be loaded on the thread that runs it.
        let engine = engine.get_or_insert_with(|| {
            let mut engine = GpuEngine::new(backend, precision, max_batch_size());
            engine.warm_up().map_err(|error| error.0).unwrap();
            engine
        });
        let next = engine.submit(batch).unwrap();
        match submitted.replace(next).filter(|_| *overlapped) {
            Some(previous) => block_on(previous).unwrap(),
            // The first run of an overlapped job has no previous batch to wait for.
            None if *overlapped => Vec::new(),
            None => block_on(submitted.take().unwrap()).unwrap(),
        }
    };
    let run: WorkerInstance<(Vec<Crop>, bool), Vec<Vec<f32>>> = Box::new(run);
    serve(&name, load, vec![run], |outputs| {
        outputs.concat().iter().flat_map(|output| output.to_le_bytes()).collect()
    });
}

/// Returns the largest batch size that is measured.
fn max_batch_size() -> usize {
    env::var("GPU_BENCH_MAX_BATCH").map_or(64, |size| size.parse().unwrap())
}

/// Returns a batch of `count` images, which are different parts of a photo.
fn cut_crops(count: usize) -> Vec<Crop> {
    let photo = image::open(repository().join("samples/coffee.jpg")).unwrap();
    let CropShape { height, width, .. } = GEOMETRY.crop;
    let (max_left, max_top) = (photo.width() - width, photo.height() - height);
    (0..u32::try_from(count).unwrap())
        .map(|index| {
            photo.crop_imm(index * 5 % max_left, index * 3 % max_top, width, height).into_rgb8().into_raw()
        })
        .map(|rgb| Crop::new(rgb, GEOMETRY.crop).unwrap())
        .collect()
}

/// The results so far, and the state that further measurements use.
struct Report {
    /// One Markdown list item per measured engine.
    engines: Vec<String>,
    /// The rows of the table of measurements.
    rows: Vec<Vec<Option<String>>>,
    utilisation: Utilisation,
    round_duration: Duration,
}

impl Report {
    fn start() -> Self {
        let seconds = env::var("GPU_BENCH_SECONDS").map_or(1.0, |seconds| seconds.parse().unwrap());
        let round_duration = Duration::from_secs_f64(seconds) / ROUNDS;
        Self { engines: Vec::new(), rows: Vec::new(), utilisation: Utilisation::start(), round_duration }
    }

    /// Measures an engine with batches of 1, 2, 4, … up to [`max_batch_size`] images. A failure becomes a row
    /// of the table.
    ///
    /// `is_ours` is true for the engines of this project.
    fn measure(&mut self, engine: &str, precision: &str, command: &mut Command, is_ours: bool) {
        println!("{engine} in {precision} …");
        if let Err(reason) = self.try_measure(engine, precision, command, is_ours) {
            let row = [Some(engine), Some(precision), None, Some(reason.as_str()), None, None];
            self.rows.push(row.map(|cell| cell.map(str::to_owned)).into());
        }
    }

    /// Measures an engine as [`Self::measure`] does.
    ///
    /// # Errors
    /// Returns the reason that the worker gives for failing.
    fn try_measure(
        &mut self,
        engine: &str,
        precision: &str,
        command: &mut Command,
        is_ours: bool,
    ) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let mut worker = Worker::start(command.current_dir(folder.path()))?;
        let mut description = format!("- {}", worker.name());
        if is_ours {
            description += &compare_with_cpu(&mut worker, precision, folder.path())?;
        }
        if !self.engines.contains(&description) {
            self.engines.push(description);
        }
        let sizes = std::iter::successors(Some(1), |size| Some(size * 2));
        for size in sizes.take_while(|&size| size <= max_batch_size()) {
            // The time per batch is measured with one batch at a time. The throughput of this project's
            // engines is measured with overlapping batches.
            worker.load("batch", &format!("{size} {}", GEOMETRY.crop.width))?;
            let (sequential_throughput, mut begin) = self.measure_job(&mut worker, "batch")?;
            let mut throughput = sequential_throughput;
            if is_ours {
                worker.load("batch", &format!("{size} {} overlapped", GEOMETRY.crop.width))?;
                (throughput, begin) = self.measure_job(&mut worker, "batch")?;
            }
            self.rows.push(vec![
                Some(engine.to_owned()),
                Some(precision.to_owned()),
                Some(size.to_string()),
                Some(format!("{:.1}", throughput * size as f64)),
                Some(format!("{:.2}", 1e3 / sequential_throughput)),
                self.utilisation.median_between(begin + SETTLING_TIME, Instant::now()),
            ]);
        }
        Ok(())
    }

    /// Returns the number of batches per second and the time at which the measurement started.
    fn measure_job(&self, worker: &mut Worker, job: &str) -> Result<(f64, Instant), String> {
        let mut measurement = Measurement::prepare(worker, job, self.round_duration)?;
        let begin = Instant::now();
        for _ in 0..ROUNDS {
            measurement.run_round(worker)?;
        }
        Ok((measurement.throughput.median(), begin))
    }

    /// Formats the report as Markdown.
    fn finish(self) -> String {
        let query = ["--format=csv,noheader,nounits", "--query-gpu=name,driver_version"];
        let gpu = output_of("nvidia-smi", &query);
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let engines = self.engines.join("\n");
        let machine = machine::describe(
            &format!("{cores} cores"),
            &format!("- GPU and driver by nvidia-smi: {gpu}\n{engines}"),
            "benches/gpu/run",
        );
        let columns = ["engine", "precision", "batch", "images/s", "ms per batch", "GPU busy"];
        format!(
            "# The network on a GPU\n\nWritten by `benches/gpu/run`.\n\n{machine}\n\n\
             A measurement begins with the pixels and ends with the outputs in the host's memory. The\n\
             milliseconds per batch are measured with one batch at a time. The images per second of wgpu\n\
             and cuda are measured with two overlapping batches, as in the service. The figures are medians\n\
             of five rounds after a warm-up.\n\n{}\n",
            markdown::table(columns, self.rows)
        )
    }
}

/// Compares a worker's outputs with the outputs of the CPU. Returns a description of the largest difference
/// and of the time until the worker's first result.
fn compare_with_cpu(worker: &mut Worker, precision: &str, folder: &Path) -> Result<String, String> {
    let begin = Instant::now();
    worker.load("batch", &format!("{} {}", max_batch_size(), GEOMETRY.crop.width))?;
    let bytes = worker.result("batch", folder)?;
    let seconds = begin.elapsed().as_secs_f64();
    let outputs = bytes.chunks_exact(4).map(|output| f32::from_le_bytes(output.try_into().unwrap()));
    let expected = Network::load(Backend::default()).logits(&cut_crops(max_batch_size())).unwrap().concat();
    assert_eq!(outputs.len(), expected.len(), "number of outputs (left) is not the expected number (right)");
    let differences = outputs.zip(&expected).map(|(output, expected)| (output - expected).abs());
    let max_difference = differences.fold(0.0, f32::max);
    let exceeds_tolerance = precision == "f32" && max_difference > TOLERANCE;
    let remark = if exceeds_tolerance { ", **more than expected of f32**" } else { "" };
    let comparison = format!("outputs differ from the CPU's by at most {max_difference:.1e}{remark}");
    Ok(format!("; {comparison}; first result after {seconds:.1} s"))
}

/// Reads the utilisation of the GPU from nvidia-smi, which prints the utilisation ten times per second.
struct Utilisation {
    /// The time of each reading, and the utilisation in per cent.
    readings: Arc<Mutex<Vec<(Instant, u32)>>>,
    /// The process nvidia-smi, or `None` if nvidia-smi does not start.
    process: Option<Child>,
}

impl Utilisation {
    fn start() -> Self {
        let mut command = Command::new("nvidia-smi");
        command.args(["--format=csv,noheader,nounits", "--query-gpu=utilization.gpu", "--loop-ms=100"]);
        let mut process = command.stdout(Stdio::piped()).spawn().ok();
        let readings = Arc::<Mutex<Vec<_>>>::default();
        if let Some(output) = process.as_mut().and_then(|process| process.stdout.take()) {
            let readings = readings.clone();
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let percent = line.trim().parse().ok();
                    readings.lock().unwrap().extend(percent.map(|percent| (Instant::now(), percent)));
                }
            });
        }
        Self { readings, process }
    }

    /// Returns the median of the readings from `begin` to `end`, or `None` if there are no readings.
    fn median_between(&self, begin: Instant, end: Instant) -> Option<String> {
        let readings = self.readings.lock().unwrap();
        let in_range = readings.iter().filter(|(time, _)| (begin..=end).contains(time));
        let mut percents: Vec<u32> = in_range.map(|&(_, percent)| percent).collect();
        percents.sort_unstable();
        percents.get(percents.len() / 2).map(|percent| format!("{percent} %"))
    }
}

impl Drop for Utilisation {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // Both calls fail only if the process has already ended.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
