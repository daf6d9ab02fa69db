//! Tests the choice of a model and its file, without network access.

use std::fs;

use crate::common::{self, Workspace};
use model_import::build_script::{self, WATCHED_VARIABLES};

/// Runs the build script's code with the environment variables in `set`. Fetching is off unless `set` enables
/// it.
fn build(workspace: &Workspace, set: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let root = workspace.root.path();
    build_script::generate(&|name| match name {
        "CARGO_MANIFEST_DIR" => Some(root.join("service").display().to_string()),
        "OUT_DIR" => Some(root.join("out").display().to_string()),
        _ => match set.iter().find(|(variable, _)| *variable == name) {
            Some((_, value)) => Some((*value).into()),
            None => (name == "CLASSIFY_MODEL_FETCH").then(|| "never".into()),
        },
    })
    .map_err(|error| error.to_string())
}

/// Returns the name of the model that was generated.
fn generated_model(workspace: &Workspace) -> String {
    let spec = fs::read_to_string(workspace.out().join("model/spec.rs")).unwrap();
    let line = spec.lines().find(|line| line.contains("NAME")).unwrap();
    line.split('"').nth(1).unwrap().into()
}

fn warnings_in(lines: &[String]) -> Vec<&String> {
    lines.iter().filter(|line| line.starts_with("cargo::warning=")).collect()
}

fn watched_paths_in(lines: &[String]) -> Vec<String> {
    lines.iter().filter_map(|line| line.strip_prefix("cargo::rerun-if-changed=")).map(Into::into).collect()
}

#[test]
fn unset_variable_and_missing_file_give_the_fallback_model_with_a_warning() {
    let workspace = Workspace::new();
    let lines = build(&workspace, &[]).unwrap();
    assert_eq!(generated_model(&workspace), "efficientnet-lite0");
    let warnings = warnings_in(&lines);
    assert_eq!(warnings.len(), 1, "{lines:?}");
    for part in ["efficientnet-lite0", "mobilenetv2", "fetching is off", "CLASSIFY_MODEL_ONNX"] {
        assert!(warnings[0].contains(part), "{part}: {warnings:?}");
    }
    // Fetching the file later must make cargo run the script again. Every watched path must exist, because
    // cargo runs the script at every build if a watched path does not exist.
    let watched = watched_paths_in(&lines);
    assert!(watched.contains(&workspace.model_folder("mobilenetv2").display().to_string()), "{watched:?}");
    for path in &watched {
        assert!(fs::exists(path).unwrap(), "{path} does not exist");
    }
    for variable in WATCHED_VARIABLES {
        assert!(lines.contains(&format!("cargo::rerun-if-env-changed={variable}")), "{lines:?}");
    }
}

#[test]
fn unset_variable_and_existing_file_give_the_default_model() {
    let workspace = Workspace::new();
    let file = workspace.model_folder("mobilenetv2").join("model.onnx");
    fs::write(&file, common::to_bytes(&common::tiny_network())).unwrap();
    let lines = build(&workspace, &[]).unwrap();
    assert_eq!(generated_model(&workspace), "mobilenetv2");
    assert!(warnings_in(&lines).is_empty(), "{lines:?}");
    assert!(watched_paths_in(&lines).contains(&file.display().to_string()));
}

#[test]
fn named_model_without_its_file_fails_with_advice() {
    let workspace = Workspace::new();
    let error = build(&workspace, &[("CLASSIFY_MODEL", "mobilenetv2")]).unwrap_err();
    for part in ["mobilenetv2/model.onnx", "fetching is off", "CLASSIFY_MODEL_ONNX"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!workspace.out().join("model").exists());
}

#[test]
fn wrong_file_of_the_default_model_fails_instead_of_falling_back() {
    let workspace = Workspace::new();
    let file = workspace.model_folder("mobilenetv2").join("model.onnx");
    fs::write(&file, "a page that says: log in first").unwrap();
    let error = build(&workspace, &[]).unwrap_err();
    for part in ["mobilenetv2/model.onnx", "expected", "found 30 bytes", "fetch mobilenetv2 --force"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn chosen_file_is_used_with_the_settings_of_the_model() {
    let workspace = Workspace::new();
    let mut network = common::tiny_network();
    network.producer_name = "somebody else".into();
    let onnx = common::to_bytes(&network);
    fs::write(workspace.root.path().join("mine.onnx"), &onnx).unwrap();
    // A relative path is relative to the workspace's folder, not to the package's folder.
    build(&workspace, &[("CLASSIFY_MODEL_ONNX", "mine.onnx")]).unwrap();
    assert_eq!(generated_model(&workspace), "mobilenetv2");
    let spec = fs::read_to_string(workspace.out().join("model/spec.rs")).unwrap();
    assert!(
        spec.contains(&common::compute_sha256(&onnx)),
        "spec.rs does not have the checksum of the chosen file"
    );

    let set = [("CLASSIFY_MODEL_ONNX", "mine.onnx"), ("CLASSIFY_MODEL", "efficientnet-lite0")];
    build(&workspace, &set).unwrap();
    assert_eq!(generated_model(&workspace), "efficientnet-lite0");

    let error = build(&workspace, &[("CLASSIFY_MODEL_ONNX", "absent.onnx")]).unwrap_err();
    assert!(error.contains("CLASSIFY_MODEL_ONNX") && error.contains("absent.onnx"), "{error}");
}

#[test]
fn unknown_model_and_invalid_fetch_setting_are_refused() {
    let workspace = Workspace::new();
    for name in ["resnet", "..", "../models/mobilenetv2"] {
        let error = build(&workspace, &[("CLASSIFY_MODEL", name)]).unwrap_err();
        assert!(error.contains("efficientnet-lite0, mobilenetv2"), "{error}");
    }
    let error = build(&workspace, &[("CLASSIFY_MODEL_FETCH", "nevre")]).unwrap_err();
    assert!(error.contains("CLASSIFY_MODEL_FETCH=nevre"), "{error}");
    // An empty value is treated as unset.
    build(&workspace, &[("CLASSIFY_MODEL", ""), ("CLASSIFY_MODEL_ONNX", "")]).unwrap();
    assert_eq!(generated_model(&workspace), "efficientnet-lite0");
}

#[test]
fn fetched_file_gets_the_modification_time_of_its_model_toml() {
    let workspace = Workspace::new();
    let folder = workspace.model_folder("mobilenetv2");
    let file = folder.join("model.onnx");
    fs::write(&file, common::to_bytes(&common::tiny_network())).unwrap();
    let pinned = fs::metadata(folder.join("model.toml")).unwrap().modified().unwrap();
    let later = pinned + std::time::Duration::from_secs(60);
    fs::File::options().append(true).open(&file).unwrap().set_modified(later).unwrap();
    build(&workspace, &[]).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), pinned);
}
