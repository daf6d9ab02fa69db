//! Converts the network's logits to probabilities, and the probabilities to a prediction with labels.

use contract::{Class, GcsPath, Prediction};

use super::constants::{CLASSES, spec};

/// WordNet id and label of each class. The id may be empty.
///
/// The table is a static, so that a lookup does not copy it.
static LABELS: [(&str, &str); CLASSES] = spec::LABELS;

/// Reason why the logits of an image are unusable. The network gives the same logits at every attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnusableLogits {
    /// A logit is infinite or not a number.
    #[error("the network gave an output that is not a finite number")]
    NotFinite,
    /// The number of logits is not the number of classes.
    #[error("{0} outputs for {expected} classes", expected = CLASSES)]
    WrongCount(usize),
}

/// Computes the probabilities of the classes from the network's outputs.
///
/// The probabilities are the softmax of `logits`. If the model itself ends in a softmax
/// ([`spec::OUTPUT_IS_LOGITS`] is false), its outputs are probabilities and are only clamped to 0..=1.
///
/// # Errors
/// Returns [`UnusableLogits`] when a logit is not finite, or the number of logits is not [`CLASSES`].
pub(crate) fn compute_probabilities(logits: &[f32]) -> Result<Vec<f32>, UnusableLogits> {
    if logits.len() != CLASSES {
        return Err(UnusableLogits::WrongCount(logits.len()));
    }
    if !logits.iter().all(|logit| logit.is_finite()) {
        return Err(UnusableLogits::NotFinite);
    }
    Ok(if spec::OUTPUT_IS_LOGITS {
        softmax(logits)
    } else {
        logits.iter().map(|output| output.clamp(0.0, 1.0)).collect()
    })
}

/// Computes the softmax of `logits`, which must be finite.
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
/// `probabilities` has one value per class. `backend` is the name of the backend that computed the values.
pub(crate) fn build_prediction(
    probabilities: &[f32],
    top_k: usize,
    backend: &str,
    gcs_path: Option<GcsPath>,
) -> Prediction {
    let top: Vec<Class> = find_largest_indices(probabilities, top_k.max(1))
        .into_iter()
        .map(|index| {
            let (wnid, label) = LABELS[index];
            Class {
                label: label.to_owned(),
                index,
                wnid: (!wnid.is_empty()).then(|| wnid.to_owned()),
                confidence: probabilities[index],
            }
        })
        .collect();
    Prediction {
        gcs_path,
        label: top[0].label.clone(),
        confidence: top[0].confidence,
        top,
        model: spec::NAME.to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn logits_that_are_not_finite_are_an_error() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut logits = vec![0.0; CLASSES];
            assert!(compute_probabilities(&logits).is_ok());
            logits[CLASSES - 1] = bad;
            assert_eq!(compute_probabilities(&logits), Err(UnusableLogits::NotFinite));
        }
    }

    #[test]
    fn missing_logit_is_an_error() {
        let logits = vec![0.0; CLASSES - 1];
        assert_eq!(compute_probabilities(&logits), Err(UnusableLogits::WrongCount(CLASSES - 1)));
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
        let mut probabilities = vec![0.0; CLASSES];
        probabilities[7] = 0.3;
        probabilities[3] = 0.2;
        probabilities[5] = 0.2;
        let all = build_prediction(&probabilities, 3, "fake", None);
        assert_eq!(all.top.iter().map(|class| class.index).collect::<Vec<_>>(), [7, 3, 5]);
        assert_eq!((all.label.as_str(), all.confidence), (LABELS[7].1, 0.3));

        let none = shorten(all.clone(), 3, 0.9);
        assert!(none.top.is_empty());
        assert_eq!((none.label, none.confidence), (all.label.clone(), 0.3));
        assert_eq!(shorten(all.clone(), 2, 0.0).top.len(), 2);
        assert_eq!(shorten(all, 3, 0.2).top.len(), 3);
    }
}
