//! Decides the kind of a model's output from the graph and from the section `[output]` of `model.toml`.

use std::fmt;

use serde::Deserialize;

use crate::graph::Ending;

/// Maximum length of an embedding, so that its JSON fits in an `embedding.json`.
pub const MAX_EMBEDDING_LENGTH: usize = 60_000;

/// The threshold of a model whose `model.toml` has none.
const DEFAULT_THRESHOLD: f32 = 0.5;

/// Kind of numbers at the network's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputKind {
    /// Logits, or logarithms of probabilities. A service converts them to probabilities with a softmax.
    Logits,
    /// Probabilities, which are the result of a softmax.
    Probabilities,
    /// One number per image, the probability of the positive class.
    Binary,
    /// A probability for each class, independent of the other classes.
    Multilabel,
    /// A vector that describes the image. There are no classes.
    Embedding,
}

impl OutputKind {
    /// Returns the value of the key `output.kind`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::Probabilities => "probabilities",
            Self::Binary => "binary",
            Self::Multilabel => "multilabel",
            Self::Embedding => "embedding",
        }
    }
}

impl fmt::Display for OutputKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// The section `[output]` of a `model.toml`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// Kind of the output, or `None` to recognise it from the graph.
    pub kind: Option<OutputKind>,
    /// Name of the graph's output, or `None` if the graph has only one.
    pub name: Option<String>,
    /// Probability from which a class counts as present.
    pub threshold: Option<f32>,
}

/// The meaning of the network's outputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelOutput {
    /// Kind of the outputs.
    pub kind: OutputKind,
    /// True if the service must apply a sigmoid, because the graph has none.
    pub needs_sigmoid: bool,
    /// Probability from which a class counts as present.
    pub threshold: f32,
}

/// Decides how a service reads the outputs of a graph with this `ending` and `output_count` outputs per image.
///
/// # Errors
/// Returns a message if `spec` contradicts the graph, or if the kind cannot be recognised from the graph.
pub fn resolve(spec: &OutputSpec, ending: Ending, output_count: usize) -> Result<ModelOutput, String> {
    let kind = match spec.kind {
        Some(kind) => {
            check_declared(kind, ending, output_count)?;
            kind
        }
        None => recognise(ending, output_count)?,
    };
    let uses_threshold = matches!(kind, OutputKind::Binary | OutputKind::Multilabel);
    if spec.threshold.is_some() && !uses_threshold {
        return Err(format!(
            "key `output.threshold` is only for the kinds binary and multilabel, but the kind is {kind}; remove \
             the key"
        ));
    }
    Ok(ModelOutput {
        kind,
        needs_sigmoid: uses_threshold && ending != Ending::Sigmoid,
        threshold: spec.threshold.unwrap_or(DEFAULT_THRESHOLD),
    })
}

/// Returns the kind of the output of a graph with this `ending`.
fn recognise(ending: Ending, output_count: usize) -> Result<OutputKind, String> {
    match (ending, output_count) {
        (Ending::Sigmoid, 1) => Ok(OutputKind::Binary),
        (Ending::Sigmoid, _) => Ok(OutputKind::Multilabel),
        (Ending::Softmax | Ending::LogSoftmax, 1) => Err(softmax_over_one_value(ending)),
        (_, 1) => Err(format!(
            "the graph has one output per image and ends in {ending}; for a binary classifier, set key \
             `output.kind` of model.toml to \"binary\", and a sigmoid is applied"
        )),
        (Ending::Softmax, _) => Ok(OutputKind::Probabilities),
        (Ending::LogSoftmax | Ending::Linear | Ending::Other, _) => Ok(OutputKind::Logits),
    }
}

/// Checks that a graph can have the declared kind.
fn check_declared(kind: OutputKind, ending: Ending, output_count: usize) -> Result<(), String> {
    let is_softmax = matches!(ending, Ending::Softmax | Ending::LogSoftmax);
    if is_softmax && output_count == 1 {
        return Err(softmax_over_one_value(ending));
    }
    let fits = match kind {
        OutputKind::Logits => !matches!(ending, Ending::Softmax | Ending::Sigmoid),
        OutputKind::Probabilities => matches!(ending, Ending::Softmax | Ending::Other),
        OutputKind::Binary | OutputKind::Multilabel | OutputKind::Embedding => !is_softmax,
    };
    if !fits {
        let advice = match recognise(ending, output_count) {
            Ok(kind) => format!("set the key to \"{kind}\", or remove it"),
            Err(_) => "set the key to \"binary\"".to_owned(),
        };
        return Err(format!("key `output.kind` is \"{kind}\", but the graph ends in {ending}; {advice}"));
    }
    match (kind, output_count) {
        (OutputKind::Logits | OutputKind::Probabilities, 1) => Err(format!(
            "key `output.kind` is \"{kind}\", but the graph has one output per image, whose probability would \
             always be 1; set the key to \"binary\""
        )),
        (OutputKind::Binary, 2..) => Err(format!(
            "key `output.kind` is \"binary\", but the graph has {output_count} outputs per image, expected one; \
             set the key to \"multilabel\" if several classes can be present at once, else to \"logits\""
        )),
        (OutputKind::Embedding, count) if count > MAX_EMBEDDING_LENGTH => Err(format!(
            "the embedding has {count} values, but its JSON has room for {MAX_EMBEDDING_LENGTH}; choose a smaller \
             output, such as the pooled features, with key `output.name`, or export the model with one"
        )),
        _ => Ok(()),
    }
}

fn softmax_over_one_value(ending: Ending) -> String {
    format!(
        "the graph ends in {ending} over one value, which is the same for every image; export the model \
         without it, and set key `output.kind` to \"binary\""
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use OutputKind::{Binary, Embedding, Logits, Multilabel, Probabilities};

    fn resolve_kind(
        kind: Option<OutputKind>,
        ending: Ending,
        output_count: usize,
    ) -> Result<(OutputKind, bool), String> {
        let spec = OutputSpec { kind, ..OutputSpec::default() };
        resolve(&spec, ending, output_count).map(|output| (output.kind, output.needs_sigmoid))
    }

    #[test]
    fn kind_is_recognised_from_the_graph() {
        for (ending, output_count, expected) in [
            (Ending::Softmax, 2, Probabilities),
            (Ending::LogSoftmax, 2, Logits),
            (Ending::Sigmoid, 1, Binary),
            (Ending::Sigmoid, 3, Multilabel),
            (Ending::Linear, 3, Logits),
            (Ending::Other, 3, Logits),
        ] {
            assert_eq!(resolve_kind(None, ending, output_count), Ok((expected, false)), "{ending}");
            assert_eq!(resolve_kind(Some(expected), ending, output_count), Ok((expected, false)), "{ending}");
        }
    }

    #[test]
    fn one_output_without_a_sigmoid_must_be_declared() {
        for ending in [Ending::Linear, Ending::Other] {
            let error = resolve_kind(None, ending, 1).unwrap_err();
            assert!(error.contains("`output.kind`") && error.contains("\"binary\""), "{error}");
            assert_eq!(resolve_kind(Some(Binary), ending, 1), Ok((Binary, true)));
        }
        for ending in [Ending::Softmax, Ending::LogSoftmax] {
            for kind in [None, Some(Binary), Some(Probabilities)] {
                let error = resolve_kind(kind, ending, 1).unwrap_err();
                assert!(error.contains("the same for every image"), "{error}");
            }
        }
    }

    #[test]
    fn sigmoid_is_applied_to_declared_multilabel_logits() {
        assert_eq!(resolve_kind(Some(Multilabel), Ending::Linear, 3), Ok((Multilabel, true)));
        assert_eq!(resolve_kind(Some(Multilabel), Ending::Sigmoid, 1), Ok((Multilabel, false)));
    }

    #[test]
    fn kind_that_contradicts_the_graph_is_refused() {
        for (kind, ending, output_count) in [
            (Logits, Ending::Softmax, 3),
            (Logits, Ending::Sigmoid, 3),
            (Logits, Ending::Linear, 1),
            (Probabilities, Ending::LogSoftmax, 3),
            (Probabilities, Ending::Sigmoid, 3),
            (Probabilities, Ending::Linear, 3),
            (Probabilities, Ending::Linear, 1),
            (Binary, Ending::Softmax, 3),
            (Binary, Ending::Sigmoid, 3),
            (Binary, Ending::Linear, 2),
            (Multilabel, Ending::Softmax, 3),
            (Embedding, Ending::Softmax, 3),
        ] {
            let error = resolve_kind(Some(kind), ending, output_count).unwrap_err();
            assert!(error.contains("`output.kind`") && error.contains(kind.name()), "{error}");
        }
    }

    #[test]
    fn embedding_that_does_not_fit_in_its_record_is_refused() {
        assert_eq!(
            resolve_kind(Some(Embedding), Ending::Linear, MAX_EMBEDDING_LENGTH),
            Ok((Embedding, false))
        );
        let error = resolve_kind(Some(Embedding), Ending::Linear, MAX_EMBEDDING_LENGTH + 1).unwrap_err();
        assert!(error.contains("60001") && error.contains("`output.name`"), "{error}");
    }

    #[test]
    fn threshold_is_only_for_kinds_that_use_it() {
        let spec = |kind| OutputSpec { kind, threshold: Some(0.3), ..OutputSpec::default() };
        assert_eq!(resolve(&spec(None), Ending::Sigmoid, 4).unwrap().threshold, 0.3);
        assert_eq!(resolve(&OutputSpec::default(), Ending::Sigmoid, 4).unwrap().threshold, 0.5);
        for kind in [None, Some(Logits), Some(Embedding)] {
            let error = resolve(&spec(kind), Ending::Linear, 4).unwrap_err();
            assert!(error.contains("`output.threshold`"), "{error}");
        }
    }
}
