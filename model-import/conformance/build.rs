//! Writes the graphs of the module `graphs` to files and converts each one with model-import.
#![expect(clippy::unwrap_used, reason = "a build script fails by panicking")]

use std::path::Path;
use std::{env, fs};

use model_import::{codegen, graph};
use onnx_ir::Message as _;

mod graphs;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=graphs");
    let out_dir = env::var("OUT_DIR").unwrap();
    let output_folder = Path::new(&out_dir);
    for (name, model) in graphs::build_all() {
        let original_path = output_folder.join(format!("{name}-original.onnx"));
        fs::write(&original_path, model.write_to_bytes().unwrap()).unwrap();
        let simplified = graph::simplify_file(&original_path, None).unwrap();
        codegen::write_network(&simplified.model, &original_path, output_folder, name).unwrap();
    }
}
