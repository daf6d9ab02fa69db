//! Converts the network's outputs to probabilities, and the probabilities to a prediction with labels.
//!
//! The functions take the [`Head`] of the model as a parameter, so that the tests cover every kind of head.

use contract::{Class, GcsPath, ModelId, Prediction};

use super::head::{Head, OutputKind};

/// Reason why the outputs for an image are unusable. The network gives the same outputs at every attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnusableOutputs {
    /// An output is infinite or not a number. The logits may contain negative infinity, but not only.
    #[error("the network gave an output that is not a finite number")]
    NotFinite,
    /// The number of outputs is not that of the model.
    #[error("{got} outputs, expected {expected}")]
    WrongCount { got: usize, expected: usize },
}

/// Computes the probabilities of the classes from the network's outputs, or returns the embedding.
///
/// An embedding is returned as it is. All other values are probabilities, one per label of `head`.
///
/// # Errors
/// Returns [`UnusableOutputs`] when an output is not usable, or the number of outputs is not that of `head`.
pub(crate) fn interpret_outputs(head: &Head, outputs: &[f32]) -> Result<Vec<f32>, UnusableOutputs> {
    let (got, expected) = (outputs.len(), head.output_count);
    if got != expected {
        return Err(UnusableOutputs::WrongCount { got, expected });
    }
    // The logarithm of a probability that underflows to 0 is negative infinity. The softmax of it is 0 again.
    let may_be_infinite = head.kind == OutputKind::Logits;
    let is_usable = |output: &f32| output.is_finite() || may_be_infinite && *output == f32::NEG_INFINITY;
    if !outputs.iter().all(is_usable) || !outputs.iter().any(|output| output.is_finite()) {
        return Err(UnusableOutputs::NotFinite);
    }
    let probability = |output: f32| if head.needs_sigmoid { sigmoid(output) } else { output.clamp(0.0, 1.0) };
    Ok(match (head.kind, head.labels) {
        (OutputKind::Embedding, _) => outputs.to_vec(),
        // The softmax of logarithms of probabilities gives these probabilities.
        (OutputKind::Logits, _) => softmax(outputs),
        (OutputKind::Binary, [_negative, _positive]) => {
            let positive = outputs[0];
            let negative = if head.needs_sigmoid { sigmoid(-positive) } else { 1.0 - probability(positive) };
            vec![negative, probability(positive)]
        }
        (OutputKind::Probabilities | OutputKind::Binary | OutputKind::Multilabel, _) => {
            outputs.iter().copied().map(probability).collect()
        }
    })
}

/// Computes the sigmoid of `logit`.
#[expect(clippy::cast_possible_truncation, reason = "f32 has enough digits for a probability")]
fn sigmoid(logit: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32
}

/// Computes the softmax of `logits`, of which at least one is finite and the others may be negative infinity.
///
/// The largest logit is subtracted from each logit first, so that no exponential overflows.
#[expect(clippy::cast_possible_truncation, reason = "f32 has enough digits for a probability")]
fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|&logit| f64::from(logit - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| (power / sum) as f32).collect()
}

/// Returns the indices of the `k` largest `values`, in descending order of the values.
///
/// The lower index comes first if two values are equal. `k` is clamped to the number of values.
fn find_largest_indices(values: &[f32], k: usize) -> Vec<usize> {
    let descending = |&a: &usize, &b: &usize| values[b].total_cmp(&values[a]).then(a.cmp(&b));
    let mut indices: Vec<usize> = (0..values.len()).collect();
    // Selecting first avoids sorting a thousand classes to find five.
    if k < indices.len() {
        indices.select_nth_unstable_by(k, descending);
        indices.truncate(k);
    }
    indices.sort_unstable_by(descending);
    indices
}

/// Builds a prediction that lists the `top_k` best classes, or one class if `top_k` is 0.
///
/// `probabilities` has one value per label of `head`, computed by `model`. `backend` is the name of the backend that
/// ran the model. The label is that of the most probable class. A binary model with two labels compares the positive
/// class with its threshold instead.
pub(crate) fn build_prediction(
    head: &Head,
    probabilities: &[f32],
    top_k: usize,
    model: &ModelId,
    backend: &str,
    gcs_path: Option<GcsPath>,
) -> Prediction {
    let class = |index: usize| {
        let (wnid, label) = head.labels[index];
        Class {
            label: label.to_owned(),
            index,
            wnid: (!wnid.is_empty()).then(|| wnid.to_owned()),
            confidence: probabilities[index],
        }
    };
    let top: Vec<Class> = find_largest_indices(probabilities, top_k.max(1)).into_iter().map(class).collect();
    let answer = match (head.kind, probabilities) {
        (OutputKind::Binary, [_, positive]) => class(usize::from(*positive >= head.threshold)),
        _ => top[0].clone(),
    };
    Prediction {
        gcs_path,
        label: answer.label,
        confidence: answer.confidence,
        top,
        model: model.name().to_owned(),
        model_sha256: Some(model.sha256().to_owned()),
        backend: backend.to_owned(),
    }
}

/// Shortens the class list of `prediction`.
///
/// At most `top_k` classes remain, each with a confidence of at least `threshold`. The label and the
/// confidence of the prediction do not change, even if this confidence is below the threshold.
pub(crate) fn shorten(mut prediction: Prediction, top_k: usize, threshold: f32) -> Prediction {
    prediction.top.truncate(top_k);
    prediction.top.retain(|class| class.confidence >= threshold);
    prediction
}

/// Returns true if a recorded `prediction` lists every class that a response needs.
///
/// The response needs the `top_k` best classes, each with a confidence of at least `threshold`. The record was
/// made for `recorded_top_k` classes.
pub(crate) fn lists_enough_classes(
    head: &Head,
    prediction: &Prediction,
    top_k: usize,
    threshold: f32,
    recorded_top_k: usize,
) -> bool {
    let class_count = prediction.top.len();
    if head.min_confidence() == 0.0 {
        return class_count >= top_k;
    }
    // The record lists the classes that reach the threshold of the model, unless there were too many.
    threshold >= head.min_confidence() && (class_count >= top_k || class_count < recorded_top_k)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HEAD;

    const LABELS: [(&str, &str); 4] = [("", "cat"), ("", "dog"), ("n1", "bird"), ("", "fish")];

    fn predict(head: &Head, outputs: &[f32], top_k: usize) -> Prediction {
        let probabilities = interpret_outputs(head, outputs).unwrap();
        let prediction =
            build_prediction(head, &probabilities, top_k, &ModelId::new("m", "0a"), "fake", None);
        shorten(prediction, top_k, head.min_confidence())
    }

    /// Returns the label, the confidence, and the labels of the class list.
    fn answer(prediction: &Prediction) -> (&str, f32, Vec<&str>) {
        let top = prediction.top.iter().map(|class| class.label.as_str()).collect();
        (&prediction.label, prediction.confidence, top)
    }

    #[test]
    fn softmax_depends_only_on_differences_and_does_not_overflow() {
        for logits in [vec![1.0, 2.0, 3.0], vec![1000.0, 1001.0, 1002.0], vec![-1000.0, -999.0, -998.0]] {
            let probabilities = softmax(&logits);
            for (got, expected) in probabilities.iter().zip([0.090_030_57, 0.244_728_47, 0.665_240_94]) {
                assert!((got - expected).abs() < 1e-6, "{logits:?}: {probabilities:?}");
            }
        }
        assert_eq!(softmax(&[f32::MAX, f32::MIN]), [1.0, 0.0]);
    }

    #[test]
    fn probabilities_get_no_second_softmax_and_logarithms_of_them_give_the_same_numbers() {
        let probabilities = [0.1, 0.2, 0.3, 0.4];
        let head = Head::for_tests(OutputKind::Probabilities, &LABELS);
        assert_eq!(interpret_outputs(&head, &probabilities).unwrap(), probabilities);
        let head = Head::for_tests(OutputKind::Logits, &LABELS);
        let from_logarithms = interpret_outputs(&head, &probabilities.map(f32::ln)).unwrap();
        for (got, expected) in from_logarithms.iter().zip(probabilities) {
            assert!((got - expected).abs() < 1e-6, "{from_logarithms:?}");
        }
    }

    #[test]
    fn binary_model_with_two_labels_answers_either_with_the_probability_of_the_label() {
        let head = Head::for_tests(OutputKind::Binary, &LABELS[..2]);
        assert_eq!(answer(&predict(&head, &[0.75], 5)), ("dog", 0.75, vec!["dog", "cat"]));
        assert_eq!(answer(&predict(&head, &[0.125], 5)), ("cat", 0.875, vec!["cat", "dog"]));
        assert_eq!(answer(&predict(&head, &[0.125], 1)), ("cat", 0.875, vec!["cat"]));

        let strict = Head { threshold: 0.9, ..head };
        assert_eq!(answer(&predict(&strict, &[0.75], 5)), ("cat", 0.25, vec!["dog", "cat"]));
        let with_sigmoid = Head { needs_sigmoid: true, ..head };
        let prediction = predict(&with_sigmoid, &[-2.0], 5);
        assert_eq!(prediction.label, "cat");
        assert!((prediction.confidence - 0.880_797).abs() < 1e-6, "{prediction:?}");
        assert_eq!(interpret_outputs(&with_sigmoid, &[90.0]).unwrap()[0], sigmoid(-90.0));
    }

    #[test]
    fn binary_model_with_one_label_lists_it_only_above_the_threshold() {
        let head = Head::for_tests(OutputKind::Binary, &LABELS[..1]);
        assert_eq!(answer(&predict(&head, &[0.75], 5)), ("cat", 0.75, vec!["cat"]));
        assert_eq!(answer(&predict(&head, &[0.25], 5)), ("cat", 0.25, vec![]));
    }

    #[test]
    fn multilabel_model_lists_every_class_above_the_threshold() {
        let head = Head::for_tests(OutputKind::Multilabel, &LABELS);
        let prediction = predict(&head, &[0.6, 0.1, 0.9, 0.5], 100);
        assert_eq!(answer(&prediction), ("bird", 0.9, vec!["bird", "cat", "fish"]));
        assert_eq!(prediction.top[1].confidence, 0.6);
        assert_eq!(answer(&predict(&head, &[0.1, 0.3, 0.2, 0.0], 100)), ("dog", 0.3, vec![]));
        assert_eq!(answer(&predict(&head, &[0.6, 0.1, 0.9, 0.5], 1)), ("bird", 0.9, vec!["bird"]));

        let low = Head { threshold: 0.2, needs_sigmoid: true, ..head };
        let prediction = predict(&low, &[-1.0, 0.0, -2.0, 3.0], 100);
        assert_eq!(answer(&prediction).2, ["fish", "dog", "cat"]);
        assert_eq!(prediction.top[1].confidence, 0.5);
    }

    #[test]
    fn embedding_is_returned_as_it_is() {
        let head = Head { output_count: 3, ..Head::for_tests(OutputKind::Embedding, &[]) };
        assert_eq!(interpret_outputs(&head, &[-2.0, 0.0, 7.5]).unwrap(), [-2.0, 0.0, 7.5]);
        assert_eq!(interpret_outputs(&head, &[-2.0, 0.0, f32::NAN]), Err(UnusableOutputs::NotFinite));
    }

    #[test]
    fn record_is_enough_if_it_lists_the_classes_of_the_response() {
        let single = Head::for_tests(OutputKind::Logits, &LABELS);
        let multilabel = Head::for_tests(OutputKind::Multilabel, &LABELS);
        let record = |head, top_k| predict(head, &[0.6, 0.1, 0.9, 0.2], top_k);
        for (top_k, expected) in [(1, true), (2, true), (3, false)] {
            let enough = lists_enough_classes(&single, &record(&single, 2), top_k, 0.0, 2);
            assert_eq!(enough, expected, "{top_k}");
        }
        // Two classes reach the threshold, and the record had room for four.
        for (top_k, threshold, expected) in [(1, 0.5, true), (4, 0.5, true), (4, 0.7, true), (4, 0.1, false)]
        {
            let record = record(&multilabel, 4);
            let enough = lists_enough_classes(&multilabel, &record, top_k, threshold, 4);
            assert_eq!(enough, expected, "{top_k} {threshold}");
        }
        // Only one of the two classes had room in the record.
        assert!(!lists_enough_classes(&multilabel, &record(&multilabel, 1), 2, 0.5, 1));
    }

    #[test]
    fn outputs_that_are_not_finite_are_an_error() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut outputs = vec![0.0; HEAD.output_count];
            assert!(interpret_outputs(&HEAD, &outputs).is_ok());
            outputs[HEAD.output_count - 1] = bad;
            assert_eq!(interpret_outputs(&HEAD, &outputs), Err(UnusableOutputs::NotFinite));
        }
    }

    #[test]
    fn logarithm_of_an_underflown_probability_gives_probability_0() {
        let head = Head::for_tests(OutputKind::Logits, &LABELS);
        let none = f32::NEG_INFINITY;
        assert_eq!(interpret_outputs(&head, &[none, 0.0, none, none]).unwrap(), [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(interpret_outputs(&head, &[none; 4]), Err(UnusableOutputs::NotFinite));
        let head = Head::for_tests(OutputKind::Multilabel, &LABELS);
        assert_eq!(interpret_outputs(&head, &[none, 0.0, 0.0, 0.0]), Err(UnusableOutputs::NotFinite));
    }

    #[test]
    fn missing_output_is_an_error() {
        let head = Head::for_tests(OutputKind::Logits, &LABELS);
        let error = UnusableOutputs::WrongCount { got: 3, expected: 4 };
        assert_eq!(interpret_outputs(&head, &[0.0; 3]), Err(error));
    }

    #[test]
    fn equal_values_are_ordered_by_index() {
        assert_eq!(find_largest_indices(&[0.1, 0.4, 0.4, 0.1], 3), [1, 2, 0]);
    }

    #[test]
    fn k_is_clamped_to_the_number_of_values() {
        assert_eq!(find_largest_indices(&[0.1, 0.9], 10), [1, 0]);
        assert_eq!(find_largest_indices(&[0.1, 0.9], 0), Vec::<usize>::new());
    }

    #[test]
    fn threshold_shortens_the_list_and_keeps_the_label() {
        let head = Head::for_tests(OutputKind::Probabilities, &LABELS);
        let all = build_prediction(&head, &[0.0, 0.2, 0.3, 0.2], 3, &ModelId::new("m", "0a"), "fake", None);
        assert_eq!(answer(&all), ("bird", 0.3, vec!["bird", "dog", "fish"]));
        assert_eq!(all.top[0].wnid.as_deref(), Some("n1"));

        let none = shorten(all.clone(), 3, 0.9);
        assert_eq!(answer(&none), ("bird", 0.3, vec![]));
        assert_eq!(shorten(all.clone(), 2, 0.0).top.len(), 2);
        assert_eq!(shorten(all, 3, 0.2).top.len(), 3);
    }
}
