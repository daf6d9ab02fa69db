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
    let out = env::var("OUT_DIR").unwrap();
    let out = Path::new(&out);
    for (name, model) in graphs::all() {
        let original = out.join(format!("{name}-original.onnx"));
        fs::write(&original, model.write_to_bytes().unwrap()).unwrap();
        let simplified = graph::simplify_file(&original).unwrap();
        codegen::write_network(&simplified.model, &original, out, name).unwrap();
    }
}
