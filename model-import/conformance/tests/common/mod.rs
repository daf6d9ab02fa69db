//! Functions that both tests use.

use std::path::Path;

use tract_onnx::prelude::*;

/// Runs tract on one batch of the shape `batch_shape` after another, and returns the outputs of all images.
pub(crate) fn run_tract(onnx_path: &Path, images: &[f32], batch_shape: [usize; 4]) -> TractResult<Vec<f32>> {
    let model = tract_onnx::onnx()
        .model_for_path(onnx_path)?
        .with_input_fact(0, f32::fact(batch_shape).into())?
        .into_typed()?
        .into_runnable()?;
    let mut all_outputs = Vec::new();
    for batch in images.chunks(batch_shape.iter().product()) {
        let outputs = model.run(tvec!(Tensor::from_shape(&batch_shape, batch)?.into()))?;
        all_outputs.extend_from_slice(outputs[0].to_plain_array_view::<f32>()?.as_slice().unwrap());
    }
    Ok(all_outputs)
}

/// Returns the largest difference of two outputs, or NaN if a value is NaN.
pub(crate) fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    // `f32::max` would ignore NaN.
    left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, |largest: f32, difference| {
        if largest >= difference || largest.is_nan() { largest } else { difference }
    })
}
