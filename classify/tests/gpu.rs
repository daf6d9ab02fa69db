//! Tests of the service on a GPU, and of the service without GPU drivers.
//!
//! With `CLASSIFY_ALLOW_SOFTWARE_GPU=1`, the tests accept a software GPU, such as Mesa's lavapipe, and fail
//! if there is no GPU. Without the variable, a test that finds no GPU passes and prints a line that begins
//! with `SKIPPED`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "test helpers may panic and print"
)]

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use classify::{
    Application, Parts, Settings,
    backend::Backend,
    engine::Infer,
    gpu::{self, Adapter, GpuEngine, GpuSettings, GpuUse, NoGpu, Placement},
    model::{GEOMETRY, Network},
    pixels::{Crop, CropShape},
    precision::Precision,
};
use platform::bucket::InMemoryBucket;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Maximum difference between a logit computed in f16 and the CPU's logit, relative to the largest logit.
///
/// With the crops of this test, the difference on lavapipe is 0.0073.
const F16_TOLERANCE: f32 = 0.02;

/// Opens the first GPU of this machine, if there is one.
fn open_any_gpu() -> Option<(Backend, Adapter)> {
    let allow_software = env::var_os("CLASSIFY_ALLOW_SOFTWARE_GPU").is_some();
    let open_gpu = |backend| gpu::open(backend, Precision::F32, allow_software);
    let results: Vec<_> = Backend::gpu_backends().map(|backend| (backend, open_gpu(backend))).collect();
    let reasons: Vec<String> =
        results.iter().filter_map(|(_, result)| result.as_ref().err()).map(ToString::to_string).collect();
    let gpu = results.into_iter().find_map(|(backend, result)| Some((backend, result.ok()?)));
    if gpu.is_none() {
        let reasons = reasons.join("; ");
        assert!(!allow_software, "CLASSIFY_ALLOW_SOFTWARE_GPU is set, but there is no GPU: {reasons}");
        println!("SKIPPED: no GPU: {reasons}");
    }
    gpu
}

fn settings_for(gpu_use: GpuUse, allow_software: bool) -> Settings {
    Settings { gpu: GpuSettings { gpu_use, allow_software, ..GpuSettings::default() }, ..Settings::default() }
}

fn repository_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Opens the first GPU of this machine if it supports f16.
fn open_any_gpu_with_f16() -> Option<(Backend, Adapter)> {
    let (backend, _) = open_any_gpu()?;
    match gpu::open(backend, Precision::F16, true) {
        Ok(adapter) => Some((backend, adapter)),
        Err(reason) => {
            assert!(reason.to_string().contains("does not support f16"), "{reason}");
            println!("SKIPPED: {reason}");
            None
        }
    }
}

/// Returns `count` different crops of a photo.
fn cut_crops(count: u32) -> Vec<Crop> {
    let photo = image::open(repository_root().join("samples/coffee.jpg")).unwrap();
    let CropShape { height, width, .. } = GEOMETRY.crop;
    let crop = |offset| photo.crop_imm(offset * 7, offset * 3, width, height).into_rgb8().into_raw();
    (0..count).map(|offset| Crop::new(crop(offset), GEOMETRY.crop).unwrap()).collect()
}

#[test]
fn batch_of_every_size_gives_the_logits_of_the_cpu() {
    let Some((backend, adapter)) = open_any_gpu() else { return };
    let mut engine = GpuEngine::new(backend, Precision::F32, 6);
    engine.warm_up().unwrap();
    let crops = cut_crops(6);
    let expected = Network::load(Backend::default()).logits(&crops).unwrap();
    for size in 1..=crops.len() {
        let outputs = engine.infer(&crops[..size]).unwrap();
        assert_eq!(outputs.len(), size);
        let pairs = outputs.iter().flatten().zip(expected.iter().flatten());
        let max_difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{backend} on {adapter}, {size} images: max abs difference {max_difference:e}");
        assert!(max_difference <= 1e-3, "{size}: {max_difference:e}");
    }
}

#[test]
fn f16_gives_the_logits_of_the_cpu_within_its_tolerance() {
    let Some((backend, adapter)) = open_any_gpu_with_f16() else { return };
    let mut engine = GpuEngine::new(backend, Precision::F16, 2);
    engine.warm_up().unwrap();
    let crops = cut_crops(2);
    let expected = Network::load(Backend::default()).logits(&crops).unwrap().concat();
    let outputs = engine.infer(&crops).unwrap().concat();
    let largest_logit = expected.iter().map(|value| value.abs()).fold(0.0, f32::max);
    let max_difference = outputs.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{backend} on {adapter}, f16: max difference {max_difference:e}, largest logit {largest_logit}");
    assert!(max_difference <= F16_TOLERANCE * largest_logit, "{max_difference:e} of {largest_logit}");
    assert!(max_difference > 1e-3, "{max_difference:e} is so small that the network must have run in f32");
}

#[test]
fn batches_that_run_at_the_same_time_get_their_own_logits() {
    let Some((backend, _)) = open_any_gpu() else { return };
    let mut engine = GpuEngine::new(backend, Precision::F32, 2);
    engine.warm_up().unwrap();
    let crops = cut_crops(3);
    let expected = Network::load(Backend::default()).logits(&crops).unwrap();
    let first = engine.submit(&crops[..2]).unwrap();
    let second = engine.submit(&crops[2..]).unwrap();
    let (second, first) =
        (futures_executor::block_on(second).unwrap(), futures_executor::block_on(first).unwrap());
    let outputs = first.into_iter().chain(second).flatten();
    let max_difference = outputs.zip(expected.concat()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(max_difference <= 1e-3, "{max_difference:e}");
}

#[tokio::test]
async fn photo_is_classified_over_http() {
    let Some((backend, adapter)) = open_any_gpu() else { return };
    let mut settings = settings_for(GpuUse::Require, true);
    settings.backend = Some(backend);
    settings.max_batch = std::num::NonZeroUsize::new(2);
    settings.gpu.batch_timeout = Duration::from_secs(120);
    settings.request_timeout = Duration::from_secs(120);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let parts = Parts::new(Arc::new(InMemoryBucket::default()));
    let application = Application::assemble(address, settings, parts).await.unwrap();
    let (address, readiness) = (application.local_addr(), application.readiness());
    let stop = CancellationToken::new();
    let running = tokio::spawn(application.run(stop.clone()));
    let ready = readiness.wait_ready().await.unwrap();
    assert_eq!(ready["backend"], backend.name());
    assert_eq!(ready["adapter"]["name"], adapter.name);
    assert_eq!(ready["precision"], "f32");

    let photo = std::fs::read(repository_root().join("samples/coffee.jpg")).unwrap();
    let client = reqwest::Client::new();
    let send = || async {
        let request = client.post(format!("http://{address}/classify")).header("content-type", "image/jpeg");
        let response = request.body(photo.clone()).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.json::<Value>().await.unwrap()
    };
    for prediction in futures_util::future::join_all((0..5).map(|_| send())).await {
        assert_eq!(prediction["label"], "espresso", "{prediction}");
        assert_eq!(prediction["backend"], backend.name());
    }
    stop.cancel();
    running.await.unwrap().unwrap();
}

fn choose_placement(
    backend: Option<Backend>,
    gpu_use: GpuUse,
    allow_software: bool,
) -> Result<Placement, NoGpu> {
    gpu::choose_placement(backend, &settings_for(gpu_use, allow_software).gpu)
}

#[test]
fn software_gpu_is_refused_unless_the_settings_allow_it() {
    let Some((backend, adapter)) = open_any_gpu() else { return };
    if !adapter.software {
        println!("SKIPPED: {adapter} is not a software GPU");
        return;
    }
    let refused = choose_placement(None, GpuUse::Require, false).unwrap_err().to_string();
    assert!(
        refused.contains("is software") && refused.contains("CLASSIFY_ALLOW_SOFTWARE_GPU=1"),
        "{refused}"
    );
    assert!(refused.contains(&adapter.name), "{refused}");
    let named = choose_placement(Some(backend), GpuUse::Prefer, false);
    assert!(named.is_err(), "a named backend has no fallback");
    let cpu = Placement::cpu(Backend::default());
    assert_eq!(choose_placement(None, GpuUse::Prefer, false).unwrap(), cpu);
    let allowed = choose_placement(None, GpuUse::Prefer, true).unwrap();
    let precision = Precision::F32;
    assert_eq!(allowed, Placement { backend, precision, adapter: Some(adapter) });
    assert_eq!(choose_placement(None, GpuUse::Never, true).unwrap(), cpu);
}

/// The result of running the program classify.
struct ProgramRun {
    /// Exit code, or `None` if the program became ready and was killed.
    code: Option<i32>,
    log: String,
}

/// Variables that hide the drivers of Vulkan, OpenGL and CUDA, in this order.
const WITHOUT_DRIVERS: [(&str, &str); 3] = [
    ("VK_DRIVER_FILES", "/nonexistent/icd.json"),
    ("__EGL_VENDOR_LIBRARY_FILENAMES", "/nonexistent/egl.json"),
    ("CUDA_VISIBLE_DEVICES", ""),
];

/// Runs the program classify without GPU drivers until it ends or is ready.
///
/// `variables` are additional environment variables for the program.
fn run_without_drivers(variables: &[(&str, &str)]) -> ProgramRun {
    run_program(&[&WITHOUT_DRIVERS, variables].concat())
}

/// Time after which the program counts as stuck. A software GPU on a busy machine takes minutes until it is ready.
const STUCK_AFTER: Duration = Duration::from_secs(900);

/// Runs the program classify until it ends or is ready. Its environment consists of `variables` and those that
/// every run needs.
fn run_program(variables: &[(&str, &str)]) -> ProgramRun {
    let folder = tempfile::tempdir().unwrap();
    let log_path = folder.path().join("log");
    let mut program = Command::new(env!("CARGO_BIN_EXE_classify"))
        .env_clear()
        .env("PORT", "0")
        .env("HOST", "127.0.0.1")
        .env("BUCKET", format!("file:{}", folder.path().join("bucket").display()))
        .env("LOG_FORMAT", "json")
        .envs(variables.iter().copied())
        .stdout(std::fs::File::create(&log_path).unwrap())
        .stderr(std::fs::File::options().append(true).open(&log_path).unwrap())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    let read_log = || std::fs::read_to_string(&log_path).unwrap();
    loop {
        if let Some(status) = program.try_wait().unwrap() {
            return ProgramRun { code: Some(status.code().unwrap()), log: read_log() };
        }
        if read_log().contains("classify is ready") {
            program.kill().unwrap();
            program.wait().unwrap();
            return ProgramRun { code: None, log: read_log() };
        }
        assert!(begin.elapsed() < STUCK_AFTER, "{}", read_log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asserts that every line of `log` is JSON, and returns the warnings.
fn parse_warnings(log: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line:?} in: {log}"))
    });
    lines.filter(|line| line["severity"] == "WARNING").collect()
}

// The largest buffer of lavapipe has 128 MiB, and the one of the largest batch of this test needs more.
#[test]
fn batch_that_does_not_fit_on_the_gpu_is_left_out_with_one_warning() {
    let Some((_, adapter)) = open_any_gpu() else { return };
    if !adapter.software {
        println!("SKIPPED: the buffers of {adapter} are as large as its memory");
        return;
    }
    let drivers = env::var("VK_DRIVER_FILES").unwrap_or_default();
    let ProgramRun { code, log } = run_program(&[
        ("VK_DRIVER_FILES", &drivers),
        ("CLASSIFY_GPU", "require"),
        ("CLASSIFY_ALLOW_SOFTWARE_GPU", "1"),
        ("CLASSIFY_MAX_BATCH", "64"),
    ]);
    assert_eq!(code, None, "{log}");
    let warnings = parse_warnings(&log);
    let [warning] = warnings.as_slice() else { panic!("{} warnings: {log}", warnings.len()) };
    assert!(warning["message"].as_str().unwrap().contains("cannot run batches of this size"), "{warning}");
    assert!(warning["reason"].as_str().unwrap().starts_with("the outputs could not be read: can't allocate"));
    assert!(warning["largest"].as_u64().unwrap() < warning["size"].as_u64().unwrap(), "{warning}");
}

#[test]
fn required_gpu_that_is_missing_ends_the_service_with_a_report() {
    let ProgramRun { code, log } = run_without_drivers(&[("CLASSIFY_GPU", "require")]);
    assert_eq!(code, Some(1), "{log}");
    assert_eq!(parse_warnings(&log), Vec::<Value>::new());
    for expected in [
        "requires a GPU",
        "VK_DRIVER_FILES=/nonexistent/icd.json",
        "libcuda.so.1",
        "libvulkan.so.1",
        "Vulkan's driver files",
    ] {
        assert!(log.contains(expected), "{expected:?} is not in: {log}");
    }
    for backend in Backend::gpu_backends() {
        assert!(log.contains(&format!("{backend}: ")), "{backend} is not in: {log}");
    }
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn preferred_gpu_that_is_missing_causes_one_warning_and_the_cpu_is_used() {
    let ProgramRun { code, log } = run_without_drivers(&[("RUST_LOG", "info")]);
    assert_eq!(code, None, "{log}");
    let warnings = parse_warnings(&log);
    let [warning] = warnings.as_slice() else { panic!("{} warnings: {log}", warnings.len()) };
    assert_eq!(warning["message"], "no GPU can be used: the network runs on the CPU");
}

#[cfg(feature = "cuda")]
#[test]
fn cuda_without_a_driver_is_refused_without_a_panic() {
    let ProgramRun { code, log } = run_without_drivers(&[("CLASSIFY_BACKEND", "cuda")]);
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains("cuda: no CUDA device was found: NVIDIA's driver (libcuda.so.1) is not installed"),
        "{log}"
    );
    assert!(!log.contains("panicked"), "{log}");
}
