//! Tests code generation from a model folder, and the errors for an invalid model folder.

use std::fs;

use crate::common::{self, CLASS_COUNT, Workspace};
use model_import::build_script::generate;
use model_import::graph::proto;

/// Builds the fallback model of a workspace. [`Workspace::new`] creates that model's ONNX file.
pub(crate) fn build(workspace: &Workspace) -> Result<Vec<String>, String> {
    let root = workspace.root.path().to_owned();
    generate(&|name| match name {
        "CARGO_MANIFEST_DIR" => Some(root.join("service").display().to_string()),
        "OUT_DIR" => Some(root.join("out").display().to_string()),
        "CLASSIFY_MODEL" => Some("efficientnet-lite0".into()),
        _ => None,
    })
    .map_err(|error| error.to_string())
}

/// Returns the error of a build whose `model.toml` has `to` in place of `from`.
fn error_after_edit(from: &str, to: &str) -> String {
    let workspace = Workspace::new();
    workspace.edit_toml("efficientnet-lite0", from, to);
    let error = build(&workspace).unwrap_err();
    assert!(error.contains("efficientnet-lite0/model.toml"), "{error}");
    error
}

#[test]
fn valid_folder_becomes_code_and_weights() {
    let workspace = Workspace::new();
    build(&workspace).unwrap();
    let out = workspace.out().join("model");
    assert_eq!(common::file_names(&out), ["fused", "network.bpk", "network.onnx", "network.rs", "spec.rs"]);
    assert_eq!(common::file_names(&out.join("fused")), ["network.onnx"]);
    let network = fs::read_to_string(out.join("network.rs")).unwrap();
    assert!(network.contains("fused::Chain::new("), "{network}");
    assert!(network.contains("pub fn from_embedded(device: &Device) -> Self"), "{network}");
    assert!(network.contains("Tensor<4>) -> Tensor<2>"), "{network}");
    let spec = fs::read_to_string(out.join("spec.rs")).unwrap();
    for line in [
        "pub const NAME: &str = \"efficientnet-lite0\";",
        "pub const INPUT: [usize; 3] = [3, 8, 8];",
        "pub const RESIZE: Resize = Resize::ShorterSide(10);",
        "pub const FILTER: Filter = Filter::Bilinear;",
        "pub const CHANNEL_ORDER: ChannelOrder = ChannelOrder::Rgb;",
        "pub const NORMALISATION: Normalisation<3> = Normalisation::MeanStd { mean: [0.5, 0.5, 0.5], std: [0.25, \
         0.25, 0.25] };",
        "pub const MAX_BATCH: Option<usize> = None;",
        "pub const OUTPUT_KIND: super::OutputKind = super::OutputKind::Probabilities;",
        "pub const OUTPUT_COUNT: usize = 4;",
        "pub const OUTPUT_NEEDS_SIGMOID: bool = false;",
        "pub const LABELS: [(&str, &str); 4] = [",
        "    (\"n1\", \"cat\"),",
        "    (\"\", \"bird\"),",
    ] {
        assert!(spec.contains(line), "{line} is not in {spec}");
    }
}

#[test]
fn unknown_key_is_reported_with_its_line() {
    let error = error_after_edit("resize = 10", "resize = 10\nsize = 12");
    assert!(error.contains("line 14") && error.contains("`size`"), "{error}");
}

#[test]
fn missing_key_is_reported_by_name() {
    let error = error_after_edit("resize = 10\n", "");
    assert!(error.contains("`resize`"), "{error}");
}

#[test]
fn invalid_value_is_reported_with_its_key() {
    for (from, to, key) in [
        ("name = \"efficientnet-lite0\"", "name = \"other\"", "`name`"),
        ("license = \"MIT\"", "license = \" \"", "`license`"),
        ("labels = \"labels.txt\"", "labels = \"../labels.txt\"", "`labels`"),
        ("file = \"model.onnx\"", "file = \"/etc/passwd\"", "`onnx.file`"),
        ("sha256 = \"", "sha256 = \"0", "`onnx.sha256`"),
        ("\nsize = ", "\n# size = ", "`onnx.size`"),
        ("urls = []", "urls = [\"ftp://host/file\"]", "`onnx.urls`"),
        ("std = [0.25, 0.25, 0.25]", "std = [0.25, 0.0, 0.25]", "`input.std`"),
        ("mean = [0.5, 0.5, 0.5]", "mean = [0.5, nan, 0.5]", "`input.mean`"),
        ("crop = 8", "crop = 11", "`input.crop`"),
        ("crop = 8", "crop = 0", "`input.crop`"),
    ] {
        let error = error_after_edit(from, to);
        assert!(error.contains(key), "{key}: {error}");
    }
    let error = error_after_edit("\"probabilities\"", "\"percent\"");
    assert!(error.contains("percent") && error.contains("logits"), "{error}");
}

#[test]
fn wrong_number_of_labels_is_reported_with_both_files_and_counts() {
    let workspace = Workspace::new();
    let labels = workspace.model_folder("efficientnet-lite0").join("labels.txt");
    fs::write(&labels, "cat\ndog\n").unwrap();
    let error = build(&workspace).unwrap_err();
    for part in ["labels.txt", "model.onnx", "2 labels", &format!("{CLASS_COUNT} classes")] {
        assert!(error.contains(part), "{part}: {error}");
    }
    fs::write(&labels, "cat\n\ndog\nbird\nfish\n").unwrap();
    let error = build(&workspace).unwrap_err();
    assert!(error.contains("labels.txt, line 2"), "{error}");
}

#[test]
fn crop_that_differs_from_the_input_size_is_refused() {
    for crop in ["crop = 7", "crop = [8, 7]"] {
        let workspace = Workspace::new();
        workspace.edit_toml("efficientnet-lite0", "crop = 8", crop);
        let error = build(&workspace).unwrap_err();
        for part in ["model.onnx", "8x8", "`input.crop`", "[8, 8]"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}

#[test]
fn channels_that_differ_from_the_input_are_refused() {
    let workspace = Workspace::new();
    workspace.edit_toml("efficientnet-lite0", "crop = 8", "crop = 8\nchannels = \"grey\"");
    workspace.edit_toml("efficientnet-lite0", "[0.5, 0.5, 0.5]", "0.5");
    workspace.edit_toml("efficientnet-lite0", "[0.25, 0.25, 0.25]", "0.25");
    let error = build(&workspace).unwrap_err();
    for part in ["model.onnx", "3 channels", "`input.channels`", "\"rgb\" or \"bgr\""] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn every_key_of_the_preprocessing_becomes_a_constant() {
    let workspace = Workspace::new();
    let edit = |from: &str, to: &str| workspace.edit_toml("efficientnet-lite0", from, to);
    edit(
        "resize = 10",
        "resize = \"letterbox\"\nletterbox_color = 114\nfilter = \"bicubic\"\nchannels = \"bgr\"",
    );
    edit("mean = [0.5, 0.5, 0.5]", "scale = 1.0");
    edit("std = [0.25, 0.25, 0.25]", "offset = [-104, -117, -124]");
    build(&workspace).unwrap();
    let spec = fs::read_to_string(workspace.out().join("model/spec.rs")).unwrap();
    for line in [
        "Resize::Letterbox([114, 114, 114]);",
        "Filter::Bicubic;",
        "ChannelOrder::Bgr;",
        "Normalisation::ScaleOffset { scale: [1.0, 1.0, 1.0], offset: [-104.0, -117.0, -124.0] };",
    ] {
        assert!(spec.contains(line), "{line} is not in {spec}");
    }
}

/// Creates a workspace whose fallback model has this ONNX file, with matching size and checksum in
/// `model.toml`.
pub(crate) fn workspace_with_onnx(onnx: &[u8]) -> Workspace {
    let workspace = Workspace::new();
    let tiny = common::to_bytes(&common::tiny_network());
    fs::write(workspace.model_folder("efficientnet-lite0").join("model.onnx"), onnx).unwrap();
    let size = |bytes: &[u8]| format!("size = {}", bytes.len());
    workspace.edit_toml("efficientnet-lite0", &size(&tiny), &size(onnx));
    workspace.edit_toml("efficientnet-lite0", &common::compute_sha256(&tiny), &common::compute_sha256(onnx));
    workspace
}

#[test]
fn file_that_is_not_onnx_is_refused_with_its_name() {
    let tiny = common::to_bytes(&common::tiny_network());
    for garbage in [b"<html>not found</html>".as_slice(), &[0xff; 200], &tiny[..tiny.len() / 2]] {
        let error = build(&workspace_with_onnx(garbage)).unwrap_err();
        assert!(error.contains("model.onnx") && error.contains("ONNX model"), "{error}");
    }
}

#[test]
fn unsupported_operator_is_reported_with_file_and_name() {
    let onnx = common::to_bytes(&common::network_ending_with("FancySoftmax"));
    let error = build(&workspace_with_onnx(&onnx)).unwrap_err();
    assert!(error.contains("model.onnx") && error.contains("FancySoftmax"), "{error}");
}

#[test]
fn network_that_joins_the_images_of_a_batch_is_limited_to_one() {
    let mut model = common::tiny_network();
    let softmax = model.graph.mut_or_insert_default().node.last_mut().unwrap();
    // The Softmax becomes a Gather of the first image, whose output is `[1, 4]`.
    softmax.op_type = "Gather".into();
    softmax.input.push("first".into());
    model.graph.mut_or_insert_default().initializer.push(proto::int_tensor("first", &[1], &[0]));
    let workspace = workspace_with_onnx(&common::to_bytes(&model));
    build(&workspace).unwrap();
    let spec = fs::read_to_string(workspace.out().join("model/spec.rs")).unwrap();
    assert!(spec.contains("pub const MAX_BATCH: Option<usize> = Some(1);"), "{spec}");
}

#[test]
fn open_height_and_width_become_those_of_the_crop() {
    let mut model = common::tiny_network();
    let open = [None, Some(3), None, None];
    model.graph.mut_or_insert_default().input = vec![proto::value_info("image", &open)];
    let workspace = workspace_with_onnx(&common::to_bytes(&model));
    build(&workspace).unwrap();
    let spec = fs::read_to_string(workspace.out().join("model/spec.rs")).unwrap();
    assert!(spec.contains("pub const INPUT: [usize; 3] = [3, 8, 8];"), "{spec}");
}

/// Moves the convolution's weights of [`common::tiny_network`] to the data file `model.onnx.data`.
fn tiny_network_with_data_file() -> (Vec<u8>, Vec<u8>) {
    let mut model = common::tiny_network();
    let tensor = &mut model.graph.mut_or_insert_default().initializer[0];
    let data = std::mem::take(&mut tensor.raw_data).to_vec();
    // onnx-ir does not export the type of an entry, so the entry is created as a default.
    tensor.external_data.push(Default::default());
    tensor.external_data[0].key = "location".into();
    tensor.external_data[0].value = "model.onnx.data".into();
    (common::to_bytes(&model), data)
}

#[test]
fn data_file_is_read_hashed_and_watched() {
    let (onnx, data) = tiny_network_with_data_file();
    let workspace = Workspace::new();
    let folder = workspace.model_folder("efficientnet-lite0");
    fs::write(folder.join("model.onnx"), &onnx).unwrap();
    let both = [onnx, data.clone()].concat();
    let tiny = common::to_bytes(&common::tiny_network());
    let size = |bytes: &[u8]| format!("size = {}", bytes.len());
    workspace.edit_toml("efficientnet-lite0", &size(&tiny), &size(&both));
    workspace.edit_toml("efficientnet-lite0", &common::compute_sha256(&tiny), &common::compute_sha256(&both));
    let error = build(&workspace).unwrap_err();
    assert!(error.contains("model.onnx.data"), "{error}");
    fs::write(folder.join("model.onnx.data"), &data).unwrap();
    let directives = build(&workspace).unwrap();
    let watch = format!("cargo::rerun-if-changed={}", folder.join("model.onnx.data").display());
    assert!(directives.contains(&watch), "{directives:?}");
    // A changed data file has another checksum.
    fs::write(folder.join("model.onnx.data"), vec![0; data.len()]).unwrap();
    assert!(build(&workspace).unwrap_err().contains("SHA-256"));
}
