//! Compares the committed code with the output of protobuf-codegen.
//!
//! With the variable `UPDATE_GENERATED`, the test replaces the committed code instead.

use std::path::Path;
use std::{env, fs};

use protobuf_codegen::{Codegen, Customize};

#[test]
fn committed_code_is_generated_from_the_proto_file() {
    let source_folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let output_folder = tempfile::TempDir::new().unwrap();
    Codegen::new()
        .pure()
        .include(&source_folder)
        .input(source_folder.join("onnx.proto"))
        .out_dir(output_folder.path())
        // Without reflection, the code is half as long. A field of type `bytes` becomes `Bytes`, which the parser
        // slices out of the file's content without a copy.
        .customize(Customize::default().lite_runtime(true).tokio_bytes(true))
        .run()
        .unwrap();
    let generated = fs::read_to_string(output_folder.path().join("onnx.rs")).unwrap();
    let committed_path = source_folder.join("generated.rs");
    if env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&committed_path, &generated).unwrap();
    }
    let committed = fs::read_to_string(&committed_path).unwrap();
    assert!(committed == generated, "src/generated.rs is out of date: run this test with UPDATE_GENERATED=1");
}
