//! Compares the logits of the compiled-in network with the logits of an independent runtime.
//!
//! The expected logits are in a file `reference_samples.json`, either in the folder of the model or in a
//! folder beside the repository. If the file is missing or belongs to another model, the test prints a line
//! that begins with `SKIPPED` and passes.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "test helpers may panic and print")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use classify::{
    Settings,
    backend::Backend,
    gpu,
    model::{CLASSES, GEOMETRY, Network, spec},
    pixels::{self, Crop, ImageHeader},
    precision::Precision,
};
use fused::Isa;
use serde_json::Value;

/// Maximum difference between a logit and its expected value. The measured differences are far smaller.
const TOLERANCE: f32 = 1e-3;
/// SHA-256 of the ONNX file whose expected logits are in the folder beside the repository.
const SHARED_MODEL_SHA256: &str = "b8d39907f46818f36dc66846d829dc119d9c3fbb480ef01743332c9f1d20bc11";

fn repository_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the folder beside the repository that contains expected logits of the compiled-in model.
///
/// # Errors
/// Returns the reason for the skip if the folder does not exist or belongs to another model.
fn find_shared_model_folder() -> Result<PathBuf, String> {
    let folder = repository_root().join("../shared/models/mobilenetv2");
    if !folder.is_dir() {
        Err(format!("there is no {}", folder.display()))
    } else if spec::ONNX_SHA256 != SHARED_MODEL_SHA256 {
        Err(format!("the compiled-in {} is not the model of {}", spec::NAME, folder.display()))
    } else {
        Ok(folder)
    }
}

/// Loads the network on every compiled-in backend. Returns each network with a name for messages.
///
/// A backend with CPU kernels is loaded once for each instruction set that this CPU supports. A GPU backend
/// is skipped if there is no GPU. With `CLASSIFY_ALLOW_SOFTWARE_GPU=1`, a software GPU is accepted.
fn load_networks() -> Vec<(String, Network)> {
    let allow_software = std::env::var_os("CLASSIFY_ALLOW_SOFTWARE_GPU").is_some();
    let load = |backend: Backend| -> Vec<(String, Network)> {
        if backend.is_gpu() {
            return match gpu::open(backend, Precision::F32, allow_software) {
                Ok(adapter) => vec![(format!("{backend} on {adapter}"), Network::load(backend))],
                Err(reason) => {
                    println!("SKIPPED: {reason}");
                    Vec::new()
                }
            };
        }
        if backend.kernel_isa(None).is_none() {
            return vec![(backend.to_string(), Network::load(backend))];
        }
        let load_with = |isa| (format!("{backend} ({isa})"), Network::load_with_isa(backend, Some(isa)));
        Isa::available().map(load_with).collect()
    };
    Backend::all().iter().copied().flat_map(load).collect()
}

/// Returns the largest absolute difference between elements at the same position.
fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Returns the crop and the expected logits of every image that the reference file lists and `samples/`
/// contains.
fn read_samples(reference_path: &Path) -> Vec<(Crop, Vec<f32>)> {
    let reference: Value = serde_json::from_slice(&fs::read(reference_path).unwrap()).unwrap();
    let images = reference["images"].as_object().unwrap();
    let samples: Vec<_> = images
        .iter()
        .filter_map(|(file_name, expected)| {
            let picture = fs::read(repository_root().join("samples").join(file_name)).ok()?;
            let rgb = image::load_from_memory(&picture).unwrap().into_rgb8().into_raw();
            let logits: Vec<f32> = serde_json::from_value(expected["logits"].clone()).unwrap();
            Some((Crop::new(rgb, GEOMETRY.crop).unwrap(), logits))
        })
        .collect();
    assert!(samples.len() >= 3, "only {} of the reference images are in samples/", samples.len());
    samples
}

/// Asserts that the logits of every network are within [`TOLERANCE`] of the logits in the reference file.
/// Returns one line of text per comparison.
fn check_samples(reference_path: &Path) -> Vec<String> {
    let (crops, expected): (Vec<_>, Vec<_>) = read_samples(reference_path).into_iter().unzip();
    let mut report = Vec::new();
    for (name, network) in load_networks() {
        for batch_size in [1, 3] {
            let mut max_difference = 0.0_f32;
            for (crops, expected) in crops.chunks(batch_size).zip(expected.chunks(batch_size)) {
                let logits = network.logits(crops).unwrap();
                assert_eq!(logits.len(), crops.len());
                for (logits, expected) in logits.iter().zip(expected) {
                    max_difference = max_difference.max(largest_difference(logits, expected));
                }
            }
            report.push(format!(
                "{}, {name}, batch {batch_size}: max abs difference {max_difference:e}",
                spec::NAME
            ));
            assert!(max_difference <= TOLERANCE, "{report:?}");
        }
    }
    report
}

#[test]
fn logits_of_samples_equal_the_reference_in_the_models_folder() {
    let reference_path = repository_root().join("models").join(spec::NAME).join("reference_samples.json");
    // The repository contains the reference of EfficientNet-Lite0, so this file must exist. The references of
    // other models may be missing.
    if !reference_path.exists() && spec::NAME != "efficientnet-lite0" {
        println!("SKIPPED: there is no {}", reference_path.display());
        return;
    }
    println!("{}", check_samples(&reference_path).join("\n"));
}

#[test]
fn logits_of_samples_equal_the_reference_beside_the_repository() {
    match find_shared_model_folder() {
        Ok(folder) => println!("{}", check_samples(&folder.join("reference_samples.json")).join("\n")),
        Err(reason) => println!("SKIPPED: {reason}"),
    }
}

#[test]
fn kernels_of_every_instruction_set_give_the_logits_of_a_backend_without_kernels() {
    // Only the backends with CPU kernels have an instruction set for their kernels.
    let (fused, plain): (Vec<Backend>, Vec<Backend>) =
        Backend::all().iter().partition(|backend| backend.kernel_isa(None).is_some());
    let (Some(&fused), Some(&plain)) = (fused.first(), plain.first()) else {
        println!("SKIPPED: the build lacks a backend with kernels or a backend without kernels");
        return;
    };
    let photo = fs::read(repository_root().join("samples/coffee.jpg")).unwrap();
    let header = ImageHeader::read(&photo, &Settings::default().image_limits()).unwrap();
    let crops = [pixels::crop(&photo, &header, GEOMETRY).unwrap()];
    let expected = Network::load(plain).logits(&crops).unwrap().concat();
    for isa in Isa::available() {
        let logits = Network::load_with_isa(fused, Some(isa)).logits(&crops).unwrap().concat();
        let max_difference = largest_difference(&logits, &expected);
        println!("{}, {fused} ({isa}) against {plain}: max abs difference {max_difference:e}", spec::NAME);
        assert!(max_difference <= 1e-4, "{isa}: {max_difference:e}");
    }
}

#[test]
fn logits_of_input_tensors_equal_the_reference_beside_the_repository() {
    let folder = match find_shared_model_folder() {
        Ok(folder) => folder,
        Err(reason) => {
            println!("SKIPPED: {reason}");
            return;
        }
    };
    let input = read_npy(&folder.join("reference_input.npy"));
    let expected = read_npy(&folder.join("reference_output.npy"));
    let image_count = expected.len() / CLASSES;
    for (name, network) in load_networks() {
        for batch_size in [1, image_count] {
            let mut logits = Vec::new();
            for batch in input.chunks(input.len() / image_count * batch_size) {
                logits.extend(network.logits_of_tensor(batch, batch_size).unwrap().concat());
            }
            let max_difference = largest_difference(&logits, &expected);
            println!("tensors, {name}, batch {batch_size}: max abs difference {max_difference:e}");
            assert!(max_difference <= TOLERANCE, "{name}, batch {batch_size}: {max_difference:e}");
        }
    }
}

/// Reads a NumPy file of little-endian f32 values in C order.
fn read_npy(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\0", "the file must be a NumPy file of version 1.0");
    // Eight bytes of signature and version, and two bytes with the length of the header, precede the header.
    let data_offset = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..data_offset]).unwrap();
    assert!(header.contains("'descr': '<f4'") && header.contains("'fortran_order': False"), "{header}");
    bytes[data_offset..].as_chunks().0.iter().copied().map(f32::from_le_bytes).collect()
}
