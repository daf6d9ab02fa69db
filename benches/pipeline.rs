//! Throughput of each stage and of the whole, in images per second: `cargo bench`.
//!
//! Criterion prints time per iteration and `thrpt` in elements (images) per second. Absolute figures
//! say something about this machine only.
#![expect(clippy::unwrap_used, reason = "a bench that fails ends the run")]

use std::{hint::black_box, path::Path, time::Duration};

use clap::Parser;
use classify::{
    backend::Backend,
    model::{GEOMETRY, Network, spec},
    pixels,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use image_pipeline::{Config, Pipeline};
use tokio_util::sync::CancellationToken;

/// Uploads under way at once when the whole is measured.
const IN_FLIGHT: usize = 8;

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)).unwrap()
}

/// Upload bytes to stored bytes, on one thread.
fn preprocess_stage(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("preprocess");
    group.throughput(Throughput::Elements(1));
    let recipe = preprocess::Settings::default().recipe();
    for name in ["chelsea.jpg", "coffee.jpg", "rocket.jpg"] {
        let photo = sample(name);
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| preprocess::image::process(black_box(&photo), &recipe).unwrap());
        });
    }
    group.finish();
}

/// One engine on all cores, several images in one forward pass.
fn classify_stage(criterion: &mut Criterion) {
    let photo = sample("coffee_224.png");
    let header = pixels::ImageHeader::read(&photo, u64::MAX).unwrap();
    let crop = pixels::crop(&photo, &header, GEOMETRY).unwrap();
    for backend in Backend::cpus() {
        let network = Network::load(backend);
        let mut group = criterion.benchmark_group(format!("classify/{}/{backend}", spec::NAME));
        group.sample_size(10);
        for batch in [1_usize, 8, 32] {
            let crops = vec![crop.clone(); batch];
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(BenchmarkId::new("batch", batch), |bencher| {
                bencher.iter(|| network.logits(black_box(&crops)).unwrap());
            });
        }
        group.finish();
    }
}

/// From upload to prediction over HTTP, through the bucket on disk and the topic in SQLite.
fn whole(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["image-pipeline", "--preprocess-port", "0", "--classify-port", "0", "--data-dir"];
    let data_dir = folder.path().to_str().unwrap();
    let config = Config::try_parse_from(arguments.into_iter().chain([data_dir])).unwrap();
    let pipeline = runtime.block_on(Pipeline::build(config)).unwrap();
    let base = format!("http://{}", pipeline.preprocess_addr());
    let readiness = pipeline.classify_readiness();
    let stop = CancellationToken::new();
    let running = runtime.spawn(pipeline.run(stop.clone()));
    runtime.block_on(readiness.wait_ready());

    let http = reqwest::Client::new();
    let photo = sample("coffee.jpg");
    let mut uploads = 0_u64;
    let mut group = criterion.benchmark_group("whole");
    group
        .throughput(Throughput::Elements(IN_FLIGHT as u64))
        .sample_size(10)
        .measurement_time(Duration::from_secs(10));
    group.bench_function(BenchmarkId::new("uploads in flight", IN_FLIGHT), |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                for _ in 0..IN_FLIGHT {
                    // Bytes behind the end of the picture give each upload an id of its own.
                    uploads += 1;
                    let mut photo = photo.clone();
                    photo.extend_from_slice(&uploads.to_le_bytes());
                    tasks.spawn(upload_and_wait(http.clone(), base.clone(), photo));
                }
                while let Some(task) = tasks.join_next().await {
                    task.unwrap();
                }
            });
        });
    });
    group.finish();
    stop.cancel();
    runtime.block_on(running).unwrap().unwrap();
}

async fn upload_and_wait(http: reqwest::Client, base: String, photo: Vec<u8>) {
    let upload = http.post(format!("{base}/preprocess")).header("content-type", "image/jpeg").body(photo);
    let uploaded: serde_json::Value =
        upload.send().await.unwrap().error_for_status().unwrap().json().await.unwrap();
    let id = uploaded["id"].as_str().unwrap();
    let answer = http.get(format!("{base}/predictions/{id}?wait=30")).send().await.unwrap();
    assert_eq!(answer.status(), reqwest::StatusCode::OK);
}

criterion_group!(benches, preprocess_stage, classify_stage, whole);
criterion_main!(benches);
