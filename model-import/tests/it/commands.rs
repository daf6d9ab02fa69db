//! Tests the command line, without network access.

use std::fs;

use clap::Parser as _;

use crate::add;
use crate::common::{self, Workspace};
use model_import::cli::Cli;

/// Runs the command line with the models of a workspace.
fn run(workspace: &Workspace, arguments: &[&str]) -> Result<String, String> {
    let models_folder = workspace.root.path().join("models");
    let options = ["model-import", "--models", models_folder.to_str().unwrap()];
    let command = Cli::try_parse_from(options.iter().chain(arguments)).map_err(|error| error.to_string())?;
    command.execute().map_err(|error| format!("{error:#}"))
}

#[test]
fn fetch_never_overwrites_a_file_of_the_user() {
    let workspace = Workspace::new();
    workspace.edit_toml("mobilenetv2", "urls = []", "urls = [\"http://127.0.0.1:1/model.onnx\"]");
    let file = workspace.model_folder("mobilenetv2").join("model.onnx");
    fs::write(&file, "months of training").unwrap();
    for arguments in [&["fetch", "mobilenetv2"][..], &["fetch", "mobilenetv2", "--force"]] {
        run(&workspace, arguments).unwrap_err();
        assert_eq!(fs::read(&file).unwrap(), b"months of training");
    }
    let error = run(&workspace, &["fetch", "mobilenetv2"]).unwrap_err();
    for part in ["move it to another folder", "overwrites no file", "add NAME"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn fetch_of_a_present_file_checks_it_without_network_access() {
    let workspace = Workspace::new();
    let summary = run(&workspace, &["fetch", "efficientnet-lite0"]).unwrap();
    assert!(summary.contains("as model.toml states"), "{summary}");
}

#[test]
fn add_and_check_describe_the_model() {
    let workspace = Workspace::new();
    let onnx_path = workspace.root.path().join("network.onnx");
    fs::write(&onnx_path, common::to_bytes(&common::tiny_network())).unwrap();
    let added = run(&workspace, &["add", "mine", onnx_path.to_str().unwrap(), "--keras", "tf"]).unwrap();
    assert!(added.contains("input.mean = 0.5: Keras"), "{added}");
    let checked = run(&workspace, &["check", "mine"]).unwrap();
    for part in
        ["licence     unknown", "labels      4", "in a batch of 2", "fused       100.0 % of 0.0 million"]
    {
        assert!(checked.contains(part), "{part}: {checked}");
    }
}

#[test]
fn kind_of_the_output_is_one_of_the_kinds_of_model_toml() {
    let workspace = Workspace::new();
    let error = run(&workspace, &["add", "mine", "x.onnx", "--kind", "scores"]).unwrap_err();
    assert!(error.contains("scores") && error.contains("multilabel"), "{error}");
    let onnx_path = workspace.root.path().join("network.onnx");
    fs::write(&onnx_path, common::to_bytes(&common::network_ending_with("Relu"))).unwrap();
    let arguments =
        ["add", "mine", onnx_path.to_str().unwrap(), "--kind", "multilabel", "--output", "classes"];
    let added = run(&workspace, &arguments).unwrap();
    for part in ["output.kind = \"multilabel\": --kind", "output.name = \"classes\": --output"] {
        assert!(added.contains(part), "{part}: {added}");
    }
}

#[test]
fn inspect_of_a_file_states_the_checksum_of_all_its_files() {
    let workspace = Workspace::new();
    let (model, data) = add::network_with_data_file();
    let onnx = common::to_bytes(&model);
    let onnx_path = workspace.root.path().join("network.onnx");
    fs::write(&onnx_path, &onnx).unwrap();
    fs::write(workspace.root.path().join("network.onnx.data"), &data).unwrap();
    let text = run(&workspace, &["inspect", onnx_path.to_str().unwrap()]).unwrap();
    let all = [onnx, data].concat();
    for part in [format!("size        {} bytes", all.len()), common::compute_sha256(&all)] {
        assert!(text.contains(&part), "{part}: {text}");
    }
}

#[test]
fn timm_and_keras_exclude_each_other() {
    let workspace = Workspace::new();
    let error = run(&workspace, &["add", "mine", "x.onnx", "--timm", "0.9", "--keras", "tf"]).unwrap_err();
    assert!(error.contains("cannot be used with"), "{error}");
}
