//! Measures how many images per second each stage and the whole pipeline process:
//! `cargo bench --bench pipeline`.
#![expect(clippy::unwrap_used, reason = "a failure ends the benchmark")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::{
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use bench_harness::{Series, is_cargo_bench, markdown, repository};
use clap::Parser;
use classify::{
    backend::Backend,
    model::{GEOMETRY, Network, spec},
    pixels,
};
use image_pipeline::{Config, Pipeline};
use tokio_util::sync::CancellationToken;

/// Number of concurrent uploads when the whole pipeline is measured.
const UPLOADS_IN_FLIGHT: usize = 8;
/// Number of rounds per row of the table. Each round gives one figure, in images per second.
const ROUNDS: usize = 10;
/// Minimum duration of a round.
const MIN_ROUND_DURATION: Duration = Duration::from_millis(500);

/// The rows of the table. Each row holds a stage and its throughput.
type Rows = Vec<[String; 2]>;

fn main() {
    let mut rows = Vec::new();
    measure_preprocess(&mut rows);
    measure_classify(&mut rows);
    measure_whole_pipeline(&mut rows);
    let columns = ["stage", "images/s: median of the rounds (best)"];
    println!("\n{}", markdown::table(columns, rows));
}

/// Measures the throughput of `run` and adds a row to the table.
///
/// Each call of `run` processes `image_count` images. The first call is not measured.
fn measure(rows: &mut Rows, stage: &str, image_count: usize, mut run: impl FnMut()) {
    run();
    let (round_count, min_round_duration) =
        if is_cargo_bench() { (ROUNDS, MIN_ROUND_DURATION) } else { (1, Duration::ZERO) };
    let mut throughput = Series::default();
    for _ in 0..round_count {
        let (start, mut run_count) = (Instant::now(), 0_usize);
        while run_count == 0 || start.elapsed() < min_round_duration {
            run();
            run_count += 1;
        }
        throughput.add((run_count * image_count) as f64 / start.elapsed().as_secs_f64());
    }
    println!("{stage}: {}", throughput.median_and_max(1));
    rows.push([stage.to_owned(), throughput.median_and_max(1)]);
}

/// Reads a photo from `samples/`.
fn read_sample(name: &str) -> Vec<u8> {
    fs::read(repository().join("samples").join(name)).unwrap()
}

/// Measures how fast one thread converts an uploaded photo to the JPEG that preprocess stores.
fn measure_preprocess(rows: &mut Rows) {
    let recipe = preprocess::Settings::default().recipe();
    for name in ["chelsea.jpg", "coffee.jpg", "rocket.jpg"] {
        let photo = read_sample(name);
        measure(rows, &format!("preprocess, {name}"), 1, || {
            drop(black_box(preprocess::image::process(black_box(&photo), &recipe).unwrap()));
        });
    }
}

/// Measures the network with each CPU backend, on all cores, with 1, 8 and 32 images per forward pass.
fn measure_classify(rows: &mut Rows) {
    let photo = read_sample("coffee_224.png");
    let header = pixels::ImageHeader::read(&photo, &classify::Settings::default().image_limits()).unwrap();
    let crop = pixels::crop(&photo, &header, GEOMETRY).unwrap();
    for backend in Backend::cpu_backends() {
        let network = Network::load(backend);
        for batch_size in [1, 8, 32] {
            let crops = vec![crop.clone(); batch_size];
            let stage = format!("classify, {} on {backend}, batch of {batch_size}", spec::NAME);
            measure(rows, &stage, batch_size, || {
                drop(black_box(network.logits(black_box(&crops)).unwrap()));
            });
        }
    }
}

/// Measures the whole pipeline, from the upload to the prediction, over HTTP.
///
/// The bucket is on disk and the topic is in SQLite.
fn measure_whole_pipeline(rows: &mut Rows) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["image-pipeline", "--preprocess-port", "0", "--classify-port", "0", "--data-dir"];
    let data_dir = folder.path().to_str().unwrap();
    let config = Config::try_parse_from(arguments.into_iter().chain([data_dir])).unwrap();
    let pipeline = runtime.block_on(Pipeline::build(config)).unwrap();
    let base_url = format!("http://{}", pipeline.preprocess_addr());
    let readiness = pipeline.classify_readiness();
    let stop = CancellationToken::new();
    let running = runtime.spawn(pipeline.run(stop.clone()));
    runtime.block_on(readiness.wait_ready());

    let http = reqwest::Client::new();
    let photo = read_sample("coffee.jpg");
    let mut upload_count = 0_u64;
    let stage = format!("whole pipeline, {UPLOADS_IN_FLIGHT} uploads in flight");
    measure(rows, &stage, UPLOADS_IN_FLIGHT, || {
        runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..UPLOADS_IN_FLIGHT {
                // The bytes after the picture differ for each upload, so that each upload has its own id.
                upload_count += 1;
                let mut photo = photo.clone();
                photo.extend_from_slice(&upload_count.to_le_bytes());
                tasks.spawn(upload_and_wait(http.clone(), base_url.clone(), photo));
            }
            while let Some(result) = tasks.join_next().await {
                result.unwrap();
            }
        });
    });
    stop.cancel();
    runtime.block_on(running).unwrap().unwrap();
}

/// Uploads a photo and waits for its prediction.
async fn upload_and_wait(http: reqwest::Client, base_url: String, photo: Vec<u8>) {
    let upload = http.post(format!("{base_url}/preprocess")).header("content-type", "image/jpeg").body(photo);
    let uploaded: serde_json::Value =
        upload.send().await.unwrap().error_for_status().unwrap().json().await.unwrap();
    let id = uploaded["id"].as_str().unwrap();
    let response = http.get(format!("{base_url}/predictions/{id}?wait=30")).send().await.unwrap();
    assert_eq!(response.status(), reqwest::StatusCode::OK);
}
