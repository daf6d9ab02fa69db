//! Tests the command that makes the folder of a model.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use crate::common::{self, Workspace};
use crate::heads;
use model_import::add::{AddOptions, Added, Recipe, add};
use model_import::build_script;
use model_import::graph::proto;
use model_import::output::OutputKind;
use onnx_proto::ModelProto;

/// Writes a network to a folder outside `models/` and returns the options for adding it as `mine`.
fn options(workspace: &Workspace, model: &ModelProto) -> AddOptions {
    let folder = workspace.root.path().join("exported");
    fs::create_dir_all(&folder).unwrap();
    let onnx_path = folder.join("network.onnx");
    fs::write(&onnx_path, common::to_bytes(model)).unwrap();
    AddOptions {
        models_folder: workspace.root.path().join("models"),
        name: "mine".into(),
        onnx_path,
        labels_path: None,
        config_folder: None,
        crop: None,
        output_name: None,
        kind: None,
        recipe: Recipe::Torchvision,
    }
}

fn write(workspace: &Workspace, name: &str, text: &str) -> PathBuf {
    let path = workspace.root.path().join("exported").join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Checks that adding fails with a message that contains each part, and leaves nothing behind.
fn assert_fails_with(workspace: &Workspace, options: &AddOptions, parts: &[&str]) {
    let error = add(options).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(common::file_names(&options.models_folder), ["efficientnet-lite0", "mobilenetv2"]);
    assert!(workspace.root.path().join("exported").exists());
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap()
}

/// Runs the build script's code for the model `mine`.
fn build(workspace: &Workspace) {
    let root = workspace.root.path();
    build_script::generate(&|name| match name {
        "CARGO_MANIFEST_DIR" => Some(root.join("service").display().to_string()),
        "OUT_DIR" => Some(root.join("out").display().to_string()),
        "CLASSIFY_MODEL" => Some("mine".into()),
        _ => None,
    })
    .unwrap();
}

#[test]
fn network_without_any_other_file_becomes_a_model_that_builds() {
    let workspace = Workspace::new();
    let options = options(&workspace, &common::tiny_network());
    let Added { folder, assumptions, check, .. } = add(&options).unwrap();
    assert_eq!(folder, workspace.model_folder("mine"));
    assert_eq!(common::file_names(&folder), ["labels.txt", "model.onnx", "model.toml"]);
    assert_eq!(read(&folder, "labels.txt"), "class_0\nclass_1\nclass_2\nclass_3\n");
    for part in
        ["input.crop = 8: the input \"image\"", "input.resize = 9", "kind = \"probabilities\"", "class_3"]
    {
        assert!(assumptions.iter().any(|line| line.contains(part)), "{part}: {assumptions:?}");
    }
    let comparison = check.comparison.unwrap();
    assert_eq!(comparison.largest_differences.len(), 2);
    assert_eq!(check.macs.fused, check.macs.total);
    assert_eq!(common::file_names(&options.models_folder), ["efficientnet-lite0", "mine", "mobilenetv2"]);
    build(&workspace);
}

#[test]
fn network_with_a_symbolic_batch_in_inner_shapes_is_compared() {
    let workspace = Workspace::new();
    let mut model = common::tiny_network();
    let shape = [None, Some(6), Some(4), Some(4)];
    model.graph.as_mut().unwrap().value_info = vec![proto::value_info("features", &shape)];
    let comparison = add(&options(&workspace, &model)).unwrap().check.comparison;
    assert!(comparison.is_ok(), "{comparison:?}");
}

#[test]
fn hugging_face_files_state_labels_and_preprocessing() {
    let workspace = Workspace::new();
    let mut options = options(&workspace, &common::network_ending_with("Relu"));
    write(&workspace, "config.json", r#"{"id2label":{"0":"ant","1":"bee","2":"cow","3":"dog"}}"#);
    let preprocessor = r#"{"do_resize":true,"size":{"shortest_edge":12},"do_center_crop":true,
        "crop_size":{"height":8,"width":8},"resample":5,"image_mean":[0.5,0.5,0.5],"image_std":[0.25,0.25,0.25]}"#;
    write(&workspace, "preprocessor_config.json", preprocessor);
    options.config_folder = options.onnx_path.parent().map(Into::into);
    let added = add(&options).unwrap();
    assert_eq!(read(&added.folder, "labels.txt"), "ant\nbee\ncow\ndog\n");
    let toml = read(&added.folder, "model.toml");
    for line in ["resize = 12", "crop = 8", "std = 0.25", "# `image_mean` of preprocessor_config.json"] {
        assert!(toml.contains(line), "{line}: {toml}");
    }
    let text = added.to_string();
    for part in ["NOT matched: `resample`", "CLASSIFY_MODEL=mine", "% of"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    build(&workspace);
}

#[test]
fn network_with_an_input_that_is_not_square_is_added() {
    let workspace = Workspace::new();
    let mut model = common::tiny_network();
    model.graph.as_mut().unwrap().input =
        vec![proto::value_info("image", &[None, Some(3), Some(16), Some(8)])];
    let added = add(&options(&workspace, &model)).unwrap();
    let toml = read(&added.folder, "model.toml");
    for line in ["crop = [16, 8]", "crop_fraction = 0.875"] {
        assert!(toml.contains(line), "{line}: {toml}");
    }
    build(&workspace);
}

#[test]
fn binary_classifier_gets_its_two_labels() {
    let workspace = Workspace::new();
    let mut options = options(&workspace, &heads::network("", 1));
    options.labels_path = Some(write(&workspace, "names.txt", "cat\ndog\n"));
    let added = add(&options).unwrap();
    assert_eq!(read(&added.folder, "labels.txt"), "cat\ndog\n");
    assert!(read(&added.folder, "model.toml").contains("kind = \"binary\""));
    build(&workspace);
}

#[test]
fn output_and_kind_choose_one_of_several_outputs() {
    let workspace = Workspace::new();
    let model = heads::with_second_output(heads::network("Softmax", 4));
    let mut options = options(&workspace, &model);
    assert_fails_with(&workspace, &options, &["2 outputs", "with the option --output"]);
    options.output_name = Some("row".into());
    options.kind = Some(OutputKind::Embedding);
    let added = add(&options).unwrap();
    assert_eq!(common::file_names(&added.folder), ["model.onnx", "model.toml"]);
    let toml = read(&added.folder, "model.toml");
    assert!(toml.ends_with("# --output\nname = \"row\"\n# --kind\nkind = \"embedding\"\n"), "{toml}");
    assert!(!toml.contains("labels"), "{toml}");
    build(&workspace);
}

#[test]
fn kind_that_contradicts_the_graph_is_refused_without_naming_the_draft() {
    let workspace = Workspace::new();
    let mut options = options(&workspace, &common::tiny_network());
    options.kind = Some(OutputKind::Logits);
    let parts = ["network.onnx", "models/mine/model.toml", "`output.kind`", "with the option --kind"];
    assert_fails_with(&workspace, &options, &parts);
    assert!(!add(&options).unwrap_err().to_string().contains(".add-"));
}

#[test]
fn folder_of_a_killed_process_with_the_same_id_is_left_alone() {
    let workspace = Workspace::new();
    let options = options(&workspace, &common::tiny_network());
    let left_behind = ["", "-0", "-1"].map(|number| format!(".add-{}{number}", process::id()));
    for name in &left_behind {
        fs::create_dir(options.models_folder.join(name)).unwrap();
    }
    add(&options).unwrap();
    let names = common::file_names(&options.models_folder);
    assert_eq!(names[..3], left_behind);
    assert_eq!(names[3..], ["efficientnet-lite0", "mine", "mobilenetv2"]);
}

#[test]
fn labels_of_an_embedding_are_refused() {
    let workspace = Workspace::new();
    let mut options = options(&workspace, &heads::network("", 5));
    options.kind = Some(OutputKind::Embedding);
    options.labels_path = Some(write(&workspace, "names.txt", "cat\ndog\n"));
    assert_fails_with(&workspace, &options, &["--labels", "names.txt", "--kind embedding"]);
}

#[test]
fn every_problem_is_reported_at_once() {
    let workspace = Workspace::new();
    let mut options = options(&workspace, &common::tiny_network());
    options.name = "../mine".into();
    options.labels_path = Some(write(&workspace, "names.txt", "cat\ndog\n"));
    options.config_folder = Some(workspace.root.path().join("absent"));
    let parts = ["\"../mine\"", "names.txt has 2 labels", "4 classes", "preprocessor_config.json"];
    assert_fails_with(&workspace, &options, &parts);
}

#[test]
fn existing_folder_is_refused_and_not_changed() {
    let workspace = Workspace::new();
    let mut options = options(&workspace, &common::tiny_network());
    options.name = "mobilenetv2".into();
    let before = read(&workspace.model_folder("mobilenetv2"), "model.toml");
    assert_fails_with(&workspace, &options, &["models/mobilenetv2 exists already"]);
    assert_eq!(read(&workspace.model_folder("mobilenetv2"), "model.toml"), before);
}

#[test]
fn output_without_a_class_dimension_is_refused() {
    let workspace = Workspace::new();
    let mut model = common::tiny_network();
    // The feature map is the output.
    let graph = model.graph.as_mut().unwrap();
    graph.node.truncate(1);
    graph.output[0].name = "features".into();
    assert_fails_with(&workspace, &options(&workspace, &model), &["network.onnx", "[batch, classes]"]);
}

#[test]
fn file_that_is_no_onnx_is_refused() {
    let workspace = Workspace::new();
    let options = options(&workspace, &common::tiny_network());
    fs::write(&options.onnx_path, "<html>not found</html>").unwrap();
    assert_fails_with(&workspace, &options, &["network.onnx", "not an ONNX model"]);
}

#[test]
fn file_above_the_limit_of_protobuf_is_refused_without_reading_it() {
    let workspace = Workspace::new();
    let options = options(&workspace, &common::tiny_network());
    let file = fs::File::options().append(true).open(&options.onnx_path).unwrap();
    file.set_len(1 << 31).unwrap();
    assert_fails_with(&workspace, &options, &["network.onnx", "2147483648 bytes", "2147483647"]);
}

/// Moves the weights of [`common::tiny_network`] to the data file `network.onnx.data`.
pub(crate) fn network_with_data_file() -> (ModelProto, Vec<u8>) {
    let mut model = common::tiny_network();
    let mut data = Vec::new();
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        let location = [
            ("location", "network.onnx.data".into()),
            ("offset", data.len().to_string()),
            ("length", tensor.raw_data.len().to_string()),
        ];
        data.extend_from_slice(&std::mem::take(&mut tensor.raw_data));
        tensor.data_location = onnx_proto::DataLocation::EXTERNAL.into();
        for (key, value) in location {
            let entry = onnx_proto::StringStringEntryProto { key: key.into(), value, ..Default::default() };
            tensor.external_data.push(entry);
        }
    }
    (model, data)
}

#[test]
fn data_file_is_copied_and_a_missing_one_is_named() {
    let workspace = Workspace::new();
    let (model, data) = network_with_data_file();
    let options = options(&workspace, &model);
    assert_fails_with(&workspace, &options, &["network.onnx.data", "cannot be read"]);
    fs::write(options.onnx_path.with_file_name("network.onnx.data"), data).unwrap();
    let added = add(&options).unwrap();
    assert_eq!(
        common::file_names(&added.folder),
        ["labels.txt", "model.onnx", "model.toml", "network.onnx.data"]
    );
    assert!(added.check.comparison.is_ok(), "{added:?}");
    build(&workspace);
}
