//! From the network's outputs to labels with probabilities.

use contract::{Class, GcsPath, Prediction};

use crate::{
    backend::Backend,
    network::{CLASSES, spec},
};

/// WordNet id or nothing, and label of each class. A static, so that a look-up copies no table.
static LABELS: [(&str, &str); CLASSES] = spec::LABELS;

/// An output is infinite or not a number: the arithmetic went wrong, and no label would be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the network gave an output that is not a finite number")]
pub struct NonFinite;

/// Probabilities of the classes: the softmax of `outputs`, or `outputs` themselves where the
/// network ends in a softmax of its own.
///
/// # Errors
/// [`NonFinite`]: never a wrong answer instead.
pub fn probabilities(outputs: &[f32]) -> Result<Vec<f32>, NonFinite> {
    if !outputs.iter().all(|output| output.is_finite()) {
        return Err(NonFinite);
    }
    Ok(if spec::OUTPUT_IS_LOGITS {
        softmax(outputs)
    } else {
        outputs.iter().map(|output| output.clamp(0.0, 1.0)).collect()
    })
}

/// Softmax of finite `logits`. The largest is subtracted first, so that no exponential overflows.
#[expect(clippy::cast_possible_truncation, reason = "a probability loses digits, not its value")]
fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|&logit| f64::from(logit - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| (power / sum) as f32).collect()
}

/// Indices of the `k` largest of `values`, largest first; of equal ones the lower index is first.
/// All of them when `k` is more than there are.
fn top_k(values: &[f32], k: usize) -> Vec<usize> {
    let better = |&a: &usize, &b: &usize| values[b].total_cmp(&values[a]).then(a.cmp(&b));
    let mut order: Vec<usize> = (0..values.len()).collect();
    // Only the best are put in order, not a thousand for the sake of five.
    if k < order.len() {
        order.select_nth_unstable_by(k, better);
        order.truncate(k);
    }
    order.sort_unstable_by(better);
    order
}

/// What is said of an image: the best `top_k` (at least one) of `probabilities`, which has a value
/// for each of the model's labels.
pub(crate) fn prediction(
    probabilities: &[f32],
    top_k: usize,
    backend: Backend,
    gcs_path: Option<GcsPath>,
) -> Prediction {
    let top: Vec<Class> = self::top_k(probabilities, top_k.max(1))
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
        backend: backend.name().to_owned(),
    }
}

/// `prediction` with at most `top_k` classes in its list, none of them below `threshold`. The best
/// class stays the answer, however improbable it is.
pub(crate) fn narrowed(mut prediction: Prediction, top_k: usize, threshold: f32) -> Prediction {
    prediction.top.truncate(top_k);
    prediction.top.retain(|class| class.confidence >= threshold);
    prediction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_is_a_distribution_whatever_the_size_of_the_logits() {
        for logits in [vec![1.0, 2.0, 3.0], vec![1000.0, 1001.0, 1002.0], vec![-1000.0, -999.0, -998.0]] {
            let probabilities = softmax(&logits);
            for (got, expected) in probabilities.iter().zip([0.090_030_57, 0.244_728_47, 0.665_240_94]) {
                assert!((got - expected).abs() < 1e-6, "{logits:?}: {probabilities:?}");
            }
        }
        assert_eq!(softmax(&[f32::MAX, f32::MIN]), [1.0, 0.0]);
    }

    #[test]
    fn what_is_not_finite_is_an_error() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(probabilities(&[0.0, bad]), Err(NonFinite));
        }
    }

    #[test]
    fn ties_go_to_the_lower_index() {
        assert_eq!(top_k(&[0.1, 0.4, 0.4, 0.1], 3), [1, 2, 0]);
    }

    #[test]
    fn more_than_all_is_all() {
        assert_eq!(top_k(&[0.1, 0.9], 10), [1, 0]);
        assert_eq!(top_k(&[0.1, 0.9], 0), Vec::<usize>::new());
    }

    #[test]
    fn the_best_class_is_the_answer_and_the_threshold_only_thins_the_list() {
        let mut probabilities = vec![0.0; CLASSES];
        probabilities[7] = 0.3;
        probabilities[3] = 0.2;
        probabilities[5] = 0.2;
        let all = prediction(&probabilities, 3, Backend::default(), None);
        assert_eq!(all.top.iter().map(|class| class.index).collect::<Vec<_>>(), [7, 3, 5]);
        assert_eq!((all.label.as_str(), all.confidence), (LABELS[7].1, 0.3));

        let none = narrowed(all.clone(), 3, 0.9);
        assert!(none.top.is_empty());
        assert_eq!((none.label, none.confidence), (all.label.clone(), 0.3));
        assert_eq!(narrowed(all.clone(), 2, 0.0).top.len(), 2);
        assert_eq!(narrowed(all, 3, 0.2).top.len(), 3);
    }
}
