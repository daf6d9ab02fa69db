//! Tests the choice of a model and its file, without network access.

use std::fs;

use crate::common::{self, Workspace};
use model_import::build_script::{self, WATCHED_VARIABLES};

/// Runs the build script's code with these environment variables, and returns the directives for cargo.
///
/// Fetching is off unless `variables` enables it.
fn build(workspace: &Workspace, variables: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let root = workspace.root.path();
    build_script::generate(&|name| match name {
        "CARGO_MANIFEST_DIR" => Some(root.join("service").display().to_string()),
        "OUT_DIR" => Some(root.join("out").display().to_string()),
        _ => match variables.iter().find(|(variable, _)| *variable == name) {
            Some((_, value)) => Some((*value).into()),
            None => (name == "CLASSIFY_MODEL_FETCH").then(|| "never".into()),
        },
    })
    .map_err(|error| error.to_string())
}

/// Returns the name of the model that was generated.
fn generated_model_name(workspace: &Workspace) -> String {
    let spec = fs::read_to_string(workspace.out().join("model/spec.rs")).unwrap();
    let line = spec.lines().find(|line| line.contains("NAME")).unwrap();
    line.split('"').nth(1).unwrap().into()
}

fn warnings_in(directives: &[String]) -> Vec<&String> {
    directives.iter().filter(|line| line.starts_with("cargo::warning=")).collect()
}

fn watched_paths_in(directives: &[String]) -> Vec<String> {
    let paths = directives.iter().filter_map(|line| line.strip_prefix("cargo::rerun-if-changed="));
    paths.map(Into::into).collect()
}

#[test]
fn build_without_variable_and_file_uses_the_fallback_model_with_a_warning() {
    let workspace = Workspace::new();
    let directives = build(&workspace, &[]).unwrap();
    assert_eq!(generated_model_name(&workspace), "efficientnet-lite0");
    let warnings = warnings_in(&directives);
    assert_eq!(warnings.len(), 1, "{directives:?}");
    for part in ["efficientnet-lite0", "mobilenetv2", "fetching is off", "CLASSIFY_MODEL_ONNX"] {
        assert!(warnings[0].contains(part), "{part}: {warnings:?}");
    }
    // Fetching the file later must make cargo run the script again. Every watched path must exist, because
    // cargo runs the script at every build if a watched path does not exist.
    let watched = watched_paths_in(&directives);
    assert!(watched.contains(&workspace.model_folder("mobilenetv2").display().to_string()), "{watched:?}");
    for path in &watched {
        assert!(fs::exists(path).unwrap(), "{path} does not exist");
    }
    for variable in WATCHED_VARIABLES {
        assert!(directives.contains(&format!("cargo::rerun-if-env-changed={variable}")), "{directives:?}");
    }
}

#[test]
fn build_without_variable_uses_the_default_model_if_its_file_exists() {
    let workspace = Workspace::new();
    let file = workspace.model_folder("mobilenetv2").join("model.onnx");
    fs::write(&file, common::to_bytes(&common::tiny_network())).unwrap();
    let directives = build(&workspace, &[]).unwrap();
    assert_eq!(generated_model_name(&workspace), "mobilenetv2");
    assert!(warnings_in(&directives).is_empty(), "{directives:?}");
    assert!(watched_paths_in(&directives).contains(&file.display().to_string()));
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
    for part in ["mobilenetv2/model.onnx", "expected", "found 30 bytes", "add NAME", "CLASSIFY_MODEL_ONNX"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // The file may be the only copy of a model, so no advice may lead to overwriting it.
    assert!(!error.contains("--force"), "{error}");
}

#[test]
fn own_file_without_a_checksum_is_used_whatever_it_contains() {
    let workspace = Workspace::new();
    let folder = workspace.model_folder("mobilenetv2");
    let toml = fs::read_to_string(folder.join("model.toml")).unwrap();
    let is_optional = |line: &&str| {
        !["license", "source", "size", "sha256", "urls"].iter().any(|key| line.starts_with(key))
    };
    let lines: Vec<&str> = toml.lines().filter(is_optional).collect();
    fs::write(folder.join("model.toml"), lines.join("\n")).unwrap();
    let error = build(&workspace, &[("CLASSIFY_MODEL", "mobilenetv2")]).unwrap_err();
    assert!(error.contains("put the file there"), "{error}");

    let mut network = common::tiny_network();
    network.producer_name = "somebody else".into();
    let onnx = common::to_bytes(&network);
    fs::write(folder.join("model.onnx"), &onnx).unwrap();
    build(&workspace, &[]).unwrap();
    let spec = fs::read_to_string(workspace.out().join("model/spec.rs")).unwrap();
    for part in [common::compute_sha256(&onnx).as_str(), "LICENSE: &str = \"unknown\""] {
        assert!(spec.contains(part), "{part}: {spec}");
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
    assert_eq!(generated_model_name(&workspace), "mobilenetv2");
    let spec = fs::read_to_string(workspace.out().join("model/spec.rs")).unwrap();
    assert!(
        spec.contains(&common::compute_sha256(&onnx)),
        "spec.rs does not have the checksum of the chosen file"
    );

    let variables = [("CLASSIFY_MODEL_ONNX", "mine.onnx"), ("CLASSIFY_MODEL", "efficientnet-lite0")];
    build(&workspace, &variables).unwrap();
    assert_eq!(generated_model_name(&workspace), "efficientnet-lite0");

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
}

#[test]
fn empty_variable_is_treated_as_unset() {
    let workspace = Workspace::new();
    build(&workspace, &[("CLASSIFY_MODEL", ""), ("CLASSIFY_MODEL_ONNX", "")]).unwrap();
    assert_eq!(generated_model_name(&workspace), "efficientnet-lite0");
}

#[test]
fn fetched_file_gets_the_modification_time_of_its_model_toml() {
    let workspace = Workspace::new();
    let folder = workspace.model_folder("mobilenetv2");
    let file = folder.join("model.onnx");
    fs::write(&file, common::to_bytes(&common::tiny_network())).unwrap();
    let toml_time = fs::metadata(folder.join("model.toml")).unwrap().modified().unwrap();
    let later = toml_time + std::time::Duration::from_secs(60);
    fs::File::options().append(true).open(&file).unwrap().set_modified(later).unwrap();
    build(&workspace, &[]).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), toml_time);
}
