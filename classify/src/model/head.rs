//! The head of a model: the kind of the network's outputs, and the labels that belong to them.

/// Kind of the network's outputs. The build recognises it from the graph or reads it from `model.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// Logits, or logarithms of probabilities. A softmax converts both to probabilities.
    Logits,
    /// Probabilities, because the network ends in a softmax.
    Probabilities,
    /// One number per image, the probability of the positive class.
    Binary,
    /// A probability for each class, independent of the other classes.
    Multilabel,
    /// A vector that describes the image. There are no classes.
    Embedding,
}

/// Everything that is needed to read the outputs of a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    /// Kind of the outputs.
    pub kind: OutputKind,
    /// Number of outputs per image.
    pub output_count: usize,
    /// True if a sigmoid must be applied to the outputs, because the network has none.
    pub needs_sigmoid: bool,
    /// Probability from which a class of a binary or multi-label model counts as present.
    pub threshold: f32,
    /// WordNet id, which may be empty, and label of each class.
    ///
    /// A binary model has the negative and then the positive class, or only the positive class. A model of
    /// embeddings has no classes.
    pub labels: &'static [(&'static str, &'static str)],
}

/// Number of classes in a prediction by default.
const DEFAULT_TOP_K: usize = 5;
/// Number of labels in a prediction of a multi-label model by default. Pictures rarely have so many.
const DEFAULT_MULTILABEL_TOP_K: usize = 100;

impl Head {
    /// Returns the number of classes, which is 0 for a model of embeddings.
    pub fn class_count(&self) -> usize {
        self.labels.len()
    }

    /// Returns true if the model computes embeddings and has no classes.
    pub fn is_embedding(&self) -> bool {
        self.kind == OutputKind::Embedding
    }

    /// Returns the base name of the records of the model.
    pub(crate) fn record_base_name(&self) -> &'static str {
        if self.is_embedding() { contract::EMBEDDING } else { contract::PREDICTION }
    }

    /// Returns the probability below which a prediction does not list a class.
    ///
    /// The value is 0 unless each class is present or absent on its own, as in a multi-label model.
    pub(crate) fn min_confidence(&self) -> f32 {
        match (self.kind, self.labels) {
            (OutputKind::Multilabel, _) | (OutputKind::Binary, [_]) => self.threshold,
            _ => 0.0,
        }
    }

    /// Returns the default of the setting `top_k`, at most the number of classes.
    pub(crate) fn default_top_k(&self) -> usize {
        let top_k =
            if self.kind == OutputKind::Multilabel { DEFAULT_MULTILABEL_TOP_K } else { DEFAULT_TOP_K };
        top_k.min(self.class_count())
    }
}

#[cfg(test)]
impl Head {
    /// Creates a head with one output per label, or a single output for a binary model.
    pub(crate) fn for_tests(kind: OutputKind, labels: &'static [(&'static str, &'static str)]) -> Self {
        let output_count = if kind == OutputKind::Binary { 1 } else { labels.len() };
        Self { kind, output_count, needs_sigmoid: false, threshold: 0.5, labels }
    }
}
