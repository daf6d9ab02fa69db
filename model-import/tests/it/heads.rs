//! Tests the kinds of outputs: recognised from the graph, declared, or refused.

use std::fs;

use model_import::graph::proto;
use onnx_proto::ModelProto;

use crate::common::{self, Workspace};
use crate::model_folder::{build, workspace_with_onnx};

const DECLARED_KIND: &str = "[output]\nkind = \"probabilities\"\n";

/// Builds a network with `output_count` outputs whose last operator is `operator`, or none if it is empty.
pub(crate) fn network(operator: &str, output_count: i64) -> ModelProto {
    let mut model = common::network_ending_with(operator);
    let graph = model.graph.mut_or_insert_default();
    let count = usize::try_from(output_count).unwrap();
    graph.initializer[1] = proto::float_tensor("weights", &[output_count, 6], &vec![0.2; 6 * count]);
    graph.initializer[2] = proto::float_tensor("bias", &[output_count], &vec![0.3; count]);
    graph.output = vec![proto::value_info("classes", &[None, Some(output_count)])];
    if operator.is_empty() {
        graph.node.pop();
        graph.node[3].output[0] = "classes".into();
    }
    model
}

/// Returns a workspace with this network, these labels and this section `[output]`.
fn workspace(model: &ModelProto, labels: Option<&str>, section: &str) -> Workspace {
    let workspace = workspace_with_onnx(&common::to_bytes(model));
    workspace.edit_toml("efficientnet-lite0", DECLARED_KIND, section);
    let labels_path = workspace.model_folder("efficientnet-lite0").join("labels.txt");
    match labels {
        Some(labels) => fs::write(labels_path, labels).unwrap(),
        None => {
            fs::remove_file(labels_path).unwrap();
            workspace.edit_toml("efficientnet-lite0", "labels = \"labels.txt\"\n", "");
        }
    }
    workspace
}

/// Builds the model and returns its constants.
fn constants(model: &ModelProto, labels: Option<&str>, section: &str) -> String {
    let workspace = workspace(model, labels, section);
    build(&workspace).unwrap();
    fs::read_to_string(workspace.out().join("model").join("spec.rs")).unwrap()
}

fn error(model: &ModelProto, labels: Option<&str>, section: &str) -> String {
    build(&workspace(model, labels, section)).unwrap_err()
}

/// Adds the pooled features as a second output, before the classes.
pub(crate) fn with_second_output(mut model: ModelProto) -> ModelProto {
    let graph = model.graph.mut_or_insert_default();
    graph.output.insert(0, proto::value_info("row", &[None, Some(6)]));
    model
}

#[test]
fn kind_is_recognised_from_the_graph_if_it_is_not_declared() {
    for (operator, output_count, labels, expected) in [
        ("Softmax", 3, "a\nb\nc\n", "Probabilities"),
        ("LogSoftmax", 3, "a\nb\nc\n", "Logits"),
        ("", 3, "a\nb\nc\n", "Logits"),
        ("Sigmoid", 3, "a\nb\nc\n", "Multilabel"),
        ("Sigmoid", 1, "no\nyes\n", "Binary"),
        ("Sigmoid", 1, "yes\n", "Binary"),
    ] {
        let spec = constants(&network(operator, output_count), Some(labels), "");
        assert!(spec.contains(&format!("super::OutputKind::{expected};")), "{operator}: {spec}");
        assert!(spec.contains("OUTPUT_NEEDS_SIGMOID: bool = false;"), "{operator}: {spec}");
        assert!(spec.contains(&format!("OUTPUT_COUNT: usize = {output_count};")), "{operator}: {spec}");
    }
}

#[test]
fn declared_binary_and_multilabel_models_without_a_sigmoid_get_one() {
    let binary = constants(&network("", 1), Some("cat\ndog\n"), "[output]\nkind = \"binary\"\n");
    let section = "[output]\nkind = \"multilabel\"\nthreshold = 0.3\n";
    let multilabel = constants(&network("", 3), Some("a\nb\nc\n"), section);
    for spec in [&binary, &multilabel] {
        assert!(spec.contains("OUTPUT_NEEDS_SIGMOID: bool = true;"), "{spec}");
    }
    assert!(binary.contains("THRESHOLD: f32 = 0.5;"), "{binary}");
    assert!(multilabel.contains("THRESHOLD: f32 = 0.3;"), "{multilabel}");
}

#[test]
fn kind_that_contradicts_the_graph_is_refused_with_both_files() {
    for (operator, kind, expected) in [
        ("Softmax", "logits", "a softmax"),
        ("Softmax", "embedding", "a softmax"),
        ("Softmax", "multilabel", "a softmax"),
        ("LogSoftmax", "probabilities", "the logarithm of a softmax"),
        ("Sigmoid", "logits", "a sigmoid"),
        ("", "probabilities", "a layer without an activation"),
        ("", "binary", "4 outputs"),
    ] {
        let labels = (kind != "embedding").then_some("a\nb\nc\nd\n");
        let error = error(&network(operator, 4), labels, &format!("[output]\nkind = \"{kind}\"\n"));
        for part in ["model.onnx", "model.toml", "`output.kind`", kind, expected] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}

#[test]
fn one_logit_without_a_declared_kind_is_refused_because_its_softmax_is_always_one() {
    let error = error(&network("", 1), Some("cat\n"), "");
    assert!(error.contains("model.onnx") && error.contains("set key `output.kind`"), "{error}");
}

#[test]
fn binary_model_with_three_labels_is_refused() {
    let error = error(&network("Sigmoid", 1), Some("a\nb\nc\n"), "");
    for part in ["labels.txt", "3 labels", "negative", "model.onnx"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn embedding_needs_no_labels_and_has_none() {
    let section = "[output]\nkind = \"embedding\"\n";
    let spec = constants(&network("", 5), None, section);
    assert!(spec.contains("super::OutputKind::Embedding;"), "{spec}");
    assert!(spec.contains("LABELS: [(&str, &str); 0] = ["), "{spec}");
    let with_labels = error(&network("", 5), Some("a\nb\nc\nd\ne\n"), section);
    assert!(with_labels.contains("`labels`") && with_labels.contains("embedding"), "{with_labels}");
    let classifier = error(&network("", 5), None, "");
    assert!(classifier.contains("`labels` is missing"), "{classifier}");
}

#[test]
fn embedding_that_does_not_fit_in_its_record_is_refused() {
    let error = error(&network("", 70_000), None, "[output]\nkind = \"embedding\"\n");
    assert!(error.contains("70000 values") && error.contains("60000"), "{error}");
}

#[test]
fn several_outputs_are_listed_unless_one_is_chosen() {
    let model = with_second_output(network("Softmax", 4));
    let (labels, section) = (Some("a\nb\nc\nd\n"), "[output]\nname = \"classes\"\n");
    let unchosen = error(&model, labels, "");
    for part in ["2 outputs", "\"row\"", "\"classes\"", "`output.name`"] {
        assert!(unchosen.contains(part), "{part}: {unchosen}");
    }
    let wrong = error(&model, labels, "[output]\nname = \"scores\"\n");
    for part in ["\"scores\"", "\"row\"", "\"classes\"", "`output.name`"] {
        assert!(wrong.contains(part), "{part}: {wrong}");
    }
    assert!(constants(&model, labels, section).contains("super::OutputKind::Probabilities;"));
    let embedding = constants(&model, None, "[output]\nname = \"row\"\nkind = \"embedding\"\n");
    assert!(embedding.contains("OUTPUT_COUNT: usize = 6;"), "{embedding}");
}

#[test]
fn threshold_is_a_probability_of_a_binary_or_multilabel_model() {
    for (operator, threshold) in [("Sigmoid", "1.5"), ("Sigmoid", "nan"), ("Softmax", "0.5")] {
        let section = format!("[output]\nthreshold = {threshold}\n");
        let error = error(&network(operator, 4), Some("a\nb\nc\nd\n"), &section);
        assert!(error.contains("`output.threshold`"), "{error}");
    }
}
