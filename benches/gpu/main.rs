//! The GPU backends by themselves, in each precision: outputs against the CPU's first, then images a second
//! and latency by batch size. `benches/gpu/run` runs it, beside others, and writes the tables.
//!
//! A line of JSON for each measurement. The service's own engine is measured: pixels from the host's
//! memory, normalising, the forward pass, and all outputs back in the host's memory, which is also what
//! ends a measurement. For images a second two batches are under way at once, as in the service.
#![expect(clippy::unwrap_used, reason = "a bench that fails ends the run")]
#![expect(clippy::print_stdout, reason = "the lines are the result")]

use std::{
    env,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use classify::{
    backend::Backend,
    engine::Infer,
    gpu::{self, GpuEngine},
    model::{GEOMETRY, Network, spec},
    pixels::Crop,
    precision::Precision,
};
use serde_json::{Value, json};

/// Medians are of so many rounds.
const ROUNDS: usize = 5;

fn main() {
    // `cargo test --benches` asks only whether it runs.
    let measured = env::args().any(|argument| argument == "--bench");
    let seconds = env::var("GPU_BENCH_SECONDS").map_or(1.0, |seconds| seconds.parse().unwrap());
    let max_batch = env::var("GPU_BENCH_MAX_BATCH").map_or(64, |batch| batch.parse().unwrap());
    let allow_software = env::var_os("CLASSIFY_ALLOW_SOFTWARE_GPU").is_some();
    if Backend::gpus().next().is_none() {
        println!("SKIPPED: no backend for a GPU is compiled in (cargo features wgpu, cuda)");
    }
    let round = Duration::from_secs_f64(seconds / ROUNDS as f64);
    for backend in Backend::gpus() {
        for precision in [Precision::F32, Precision::F16] {
            let line = Line { backend, precision };
            match gpu::open(backend, precision, allow_software) {
                Ok(adapter) => {
                    line.print(json!({ "adapter": adapter, "model": spec::NAME }));
                    if measured {
                        measure(line, max_batch, round);
                    }
                }
                Err(reason) => line.print(json!({ "absent": reason.to_string() })),
            }
        }
    }
}

/// Whom a line of the result is about.
#[derive(Clone, Copy)]
struct Line {
    backend: Backend,
    precision: Precision,
}

impl Line {
    fn print(self, mut values: Value) {
        values["engine"] = self.backend.name().into();
        values["precision"] = self.precision.name().into();
        println!("{values}");
    }
}

fn measure(line: Line, max_batch: usize, round: Duration) {
    let crops = crops(max_batch);
    let begin = Instant::now();
    let mut engine = GpuEngine::new(line.backend, line.precision, max_batch);
    if let Err(error) = engine.warm_up() {
        return line.print(json!({ "absent": error.0.to_string() }));
    }
    let warm_up = begin.elapsed().as_secs_f64();
    let difference = difference(&mut engine, &crops);
    line.print(json!({ "warm_up_seconds": warm_up, "max_abs_difference": difference }));
    let sizes = std::iter::successors(Some(1), |size| Some(size * 2)).take_while(|&size| size <= max_batch);
    for size in sizes {
        let batch = &crops[..size];
        let since = epoch();
        let latency = median(|| {
            let (begin, mut runs) = (Instant::now(), 0_u32);
            while begin.elapsed() < round || runs == 0 {
                engine.infer(batch).unwrap();
                runs += 1;
            }
            begin.elapsed().as_secs_f64() / f64::from(runs)
        });
        let between = epoch();
        let per_batch = median(|| overlapped(&mut engine, batch, round));
        line.print(json!({
            "batch": size,
            "latency_ms": latency * 1e3,
            "images_per_second": size as f64 / per_batch,
            "latency_from": since,
            "throughput_from": between,
            "throughput_to": epoch(),
        }));
    }
}

/// Seconds a batch, with the next one handed over before each is read.
fn overlapped(engine: &mut GpuEngine, batch: &[Crop], round: Duration) -> f64 {
    let (begin, mut runs) = (Instant::now(), 0_u32);
    let mut running = engine.submit(batch).unwrap();
    while begin.elapsed() < round || runs == 0 {
        let next = engine.submit(batch).unwrap();
        futures_executor::block_on(running).unwrap();
        running = next;
        runs += 1;
    }
    let seconds = begin.elapsed().as_secs_f64() / f64::from(runs);
    futures_executor::block_on(running).unwrap();
    seconds
}

fn median(mut round: impl FnMut() -> f64) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round()).collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

/// Largest difference of an output from what the CPU gives, over all crops.
fn difference(engine: &mut GpuEngine, crops: &[Crop]) -> f32 {
    let expected = Network::load(Backend::default()).logits(crops).unwrap().concat();
    let outputs = engine.infer(crops).unwrap().concat();
    assert_eq!(outputs.len(), expected.len());
    outputs.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Parts of a photo, each another.
fn crops(count: usize) -> Vec<Crop> {
    let photo = image::open(concat!(env!("CARGO_MANIFEST_DIR"), "/samples/coffee.jpg")).unwrap();
    let side = GEOMETRY.crop;
    let (right, down) = (photo.width() - side, photo.height() - side);
    (0..u32::try_from(count).unwrap())
        .map(|n| photo.crop_imm(n * 5 % right, n * 3 % down, side, side).into_rgb8().into_raw())
        .map(|rgb| Crop::new(rgb, side).unwrap())
        .collect()
}

/// Seconds since 1970: what the readings of a utilisation are matched by.
fn epoch() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}
