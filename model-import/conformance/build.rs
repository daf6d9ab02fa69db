//! Converts the graphs of the module `graphs` and some networks in `exports/` with model-import.
#![expect(clippy::unwrap_used, reason = "a build script fails by panicking")]

use std::path::Path;
use std::{env, fs};

use model_import::graph::SimplifyOptions;
use model_import::{codegen, graph};
use onnx_proto::Message as _;

mod graphs;

/// Folders in `exports/` of networks that are compiled, and the height and width of their images.
///
/// Compiling a network takes seconds, so only networks that exercise most of the graph passes are compiled.
const COMPILED_EXPORTS: [(&str, graph::ImageSize); 2] =
    [("torch-legacy-vit", [32, 32]), ("torch-dynamo-average-pool-ceil", [32, 32])];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=graphs");
    let out_dir = env::var("OUT_DIR").unwrap();
    let output_folder = Path::new(&out_dir);
    for (name, model) in graphs::build_all() {
        let original_path = output_folder.join(format!("{name}-original.onnx"));
        fs::write(&original_path, model.write_to_bytes().unwrap()).unwrap();
        let simplified = graph::simplify_file(&original_path, &SimplifyOptions::default()).unwrap();
        codegen::write_network(&simplified.model, &original_path, output_folder, name).unwrap();
    }
    println!("cargo::rerun-if-changed=exports");
    for (name, size) in COMPILED_EXPORTS {
        let path = Path::new("exports").join(name).join("model.onnx");
        let simplified =
            graph::simplify_file(&path, &SimplifyOptions { image_size: Some(size), output_name: None })
                .unwrap();
        let module = name.replace('-', "_");
        codegen::write_network(&simplified.model, &path, output_folder, &module).unwrap();
    }
}
