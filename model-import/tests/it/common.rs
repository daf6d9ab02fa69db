//! Builds workspaces with model folders and a tiny network.

use std::fs;
use std::path::{Path, PathBuf};

use model_import::graph::proto::{self, NodeExt as _};
use onnx_proto::{Message as _, ModelProto};
use tempfile::TempDir;

pub(crate) const CLASS_COUNT: usize = 4;

/// Builds a network of Conv, pooling, Gemm and Softmax for 8x8 images and four classes.
pub(crate) fn tiny_network() -> ModelProto {
    network_ending_with("Softmax")
}

/// Builds the network of [`tiny_network`] with `operator` as the last operator.
pub(crate) fn network_ending_with(operator: &str) -> ModelProto {
    let mut model = ModelProto { ir_version: 8, ..Default::default() };
    model.opset_import.push(Default::default());
    model.opset_import[0].version = 13;
    let graph = model.graph.mut_or_insert_default();
    graph.name = "tiny".into();
    graph.initializer = vec![
        proto::float_tensor("kernel", &[6, 3, 3, 3], &[0.1; 162]),
        proto::float_tensor("weights", &[4, 6], &[0.2; 24]),
        proto::float_tensor("bias", &[4], &[0.3; 4]),
    ];
    graph.node = vec![
        proto::node("Conv", &["image", "kernel"], &["features"])
            .with_ints("kernel_shape", &[3, 3])
            .with_ints("strides", &[2, 2])
            .with_ints("pads", &[1, 1, 1, 1]),
        proto::node("GlobalAveragePool", &["features"], &["pooled"]),
        proto::node("Flatten", &["pooled"], &["row"]).with_int("axis", 1),
        proto::node("Gemm", &["row", "weights", "bias"], &["logits"]).with_int("transB", 1),
        proto::node(operator, &["logits"], &["classes"]),
    ];
    graph.input = vec![proto::value_info("image", &[None, Some(3), Some(8), Some(8)])];
    graph.output = vec![proto::value_info("classes", &[None, Some(4)])];
    model
}

pub(crate) fn to_bytes(model: &ModelProto) -> Vec<u8> {
    model.write_to_bytes().unwrap()
}

/// A workspace with three folders: `models/` holds the model folders, `service/` stands for the package that
/// is built, and `out/` receives the generated code.
pub(crate) struct Workspace {
    pub(crate) root: TempDir,
}

impl Workspace {
    /// Creates the default model without its ONNX file, and the fallback model with it.
    pub(crate) fn new() -> Self {
        let this = Self { root: TempDir::new().unwrap() };
        for folder in ["service", "out"] {
            fs::create_dir(this.root.path().join(folder)).unwrap();
        }
        this.add_model("mobilenetv2");
        this.add_model("efficientnet-lite0");
        let onnx = to_bytes(&tiny_network());
        fs::write(this.model_folder("efficientnet-lite0").join("model.onnx"), onnx).unwrap();
        this
    }

    pub(crate) fn model_folder(&self, name: &str) -> PathBuf {
        self.root.path().join("models").join(name)
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.root.path().join("out")
    }

    /// Creates a model folder for [`tiny_network`], without the ONNX file.
    fn add_model(&self, name: &str) {
        let folder = self.model_folder(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("model.toml"), model_toml(name)).unwrap();
        fs::write(folder.join("labels.txt"), "n1\tcat\nn2\tdog\nbird\nfish\n").unwrap();
    }

    /// Replaces the text `from` by `to` in the `model.toml` of a model.
    pub(crate) fn edit_toml(&self, name: &str, from: &str, to: &str) {
        let file = self.model_folder(name).join("model.toml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        fs::write(&file, text.replace(from, to)).unwrap();
    }
}

/// Returns a `model.toml` for [`tiny_network`].
fn model_toml(name: &str) -> String {
    let onnx = to_bytes(&tiny_network());
    let size = onnx.len();
    let sha256 = compute_sha256(&onnx);
    format!(
        "name = \"{name}\"
license = \"MIT\"
source = \"a test\"
labels = \"labels.txt\"
[onnx]
file = \"model.onnx\"
size = {size}
sha256 = \"{sha256}\"
urls = []
[input]
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
resize = 10
crop = 8
[output]
kind = \"probabilities\"
"
    )
}

pub(crate) fn compute_sha256(bytes: &[u8]) -> String {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("bytes");
    fs::write(&file, bytes).unwrap();
    model_import::fetch::size_and_sha256(&file).unwrap().1
}

/// Returns the names of the files in a folder, sorted.
pub(crate) fn file_names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
