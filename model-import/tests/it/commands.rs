//! Tests the command line, without network access.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use clap::Parser as _;

use crate::add;
use crate::common::{self, Workspace};
use model_import::cli::Cli;
use model_import::compare;
use model_import::compiled::CompiledNetwork;
use model_import::locate;
use model_import::model::Model;

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

/// Stores a program that replaces cargo. It consumes the images, and runs `script`.
fn fake_cargo(workspace: &Workspace, script: &str) -> CompiledNetwork {
    let cargo = workspace.root.path().join("cargo");
    fs::write(&cargo, format!("#!/bin/sh\ncat >images\necho \"$CLASSIFY_MODEL $*\" >>calls\n{script}\n"))
        .unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    CompiledNetwork { cargo, workspace: workspace.root.path().into(), profile: "dev".into() }
}

#[test]
fn outputs_of_the_generated_code_are_compared_with_those_of_the_original() {
    let workspace = Workspace::new();
    let spec = locate::read_spec(&workspace.root.path().join("models"), "efficientnet-lite0").unwrap();
    let onnx_path = spec.onnx_path();
    let model = Model::read(spec, onnx_path, String::new()).unwrap();
    // The weights of all classes are equal, so each class has the probability 0.25. The ninth argument is the batch size.
    let quarter = r"printf '\000\000\200\076'";
    let right = format!("for value in $(seq $((4 * $9))); do {quarter}; done");
    let comparison = compare::compare_compiled(&model, &fake_cargo(&workspace, &right)).unwrap().unwrap();
    assert_eq!(comparison.largest_differences.iter().map(|(batch, _)| *batch).collect::<Vec<_>>(), [1, 2]);
    let calls = fs::read_to_string(workspace.root.path().join("calls")).unwrap();
    assert!(calls.contains("efficientnet-lite0 run --profile dev"), "{calls}");
    assert_eq!(fs::read(workspace.root.path().join("images")).unwrap().len(), 2 * 3 * 8 * 8 * 4);
    for (script, reason) in [
        (r"printf '\000\000\200\076%.0s' 1 2 3", "3 outputs in a batch of 1, not 4"),
        (r"printf '\000\000\000\000%.0s' 1 2 3 4", "the largest difference is 0.25"),
        ("exit 101", "exit status: 101"),
    ] {
        let error =
            compare::compare_compiled(&model, &fake_cargo(&workspace, script)).unwrap_err().to_string();
        assert!(error.contains("the generated code of") && error.contains(reason), "{script}: {error}");
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
