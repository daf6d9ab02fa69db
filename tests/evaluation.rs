//! This test uploads labelled photos and counts the correct predictions.
//!
//! The photos are not in this repository (see CONTRIBUTING.md). If they are missing, the test prints SKIPPED
//! and passes.

mod common;

use std::path::PathBuf;

use common::start_pipeline;
use contract::PredictionRecord;

/// Number of photos, out of 127, for which onnxruntime predicts the correct class. The number is the same for
/// MobileNetV2 and EfficientNet-Lite0.
///
/// For this reference, the shorter side of each photo was resized to 256 pixels with Pillow's filter
/// BILINEAR, and the centre was cropped to 224 × 224 pixels. The resized photo was not encoded as JPEG,
/// although preprocess does that.
const REFERENCE_TOP_1: usize = 113;

#[tokio::test(flavor = "multi_thread")]
async fn top_1_accuracy_on_127_photos_is_within_one_photo_of_onnxruntime() {
    let photo_folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/eval");
    let Ok(table) = std::fs::read_to_string(photo_folder.join("labels.tsv")) else {
        println!("SKIPPED: no evaluation photos in {}", photo_folder.display());
        return;
    };
    let data_dir = tempfile::tempdir().unwrap();
    let pipeline = start_pipeline(data_dir.path()).await;
    let (mut photo_count, mut top_1, mut top_5) = (0, 0, 0);
    let mut model_and_backend = String::new();
    for row in table.lines().skip(1) {
        let mut columns = row.split('\t');
        let (file_name, class) = (columns.next().unwrap(), columns.next().unwrap());
        let class: usize = class.parse().unwrap();
        let photo = std::fs::read(photo_folder.join("images").join(file_name)).unwrap();
        let id = pipeline.client.upload_and_get_id(photo).await;
        let record = pipeline.client.await_prediction(&id).await;
        let PredictionRecord::Done(prediction) = record else { panic!("{file_name}: {record:?}") };
        photo_count += 1;
        top_1 += usize::from(prediction.top[0].index == class);
        top_5 += usize::from(prediction.top.iter().any(|entry| entry.index == class));
        model_and_backend = format!("{} on {}", prediction.model, prediction.backend);
    }
    println!("{model_and_backend}: top-1 {top_1}, top-5 {top_5} of {photo_count}");
    assert_eq!(photo_count, 127);
    assert!(top_1 + 1 >= REFERENCE_TOP_1, "top-1 {top_1}, reference {REFERENCE_TOP_1}");
    if model_and_backend.starts_with("mobilenetv2 ") {
        // The filter of preprocess is sharper than BILINEAR. With the sharper filter, EfficientNet-Lite0
        // classifies a few more photos correctly, also in onnxruntime, but MobileNetV2 does not. For
        // MobileNetV2, a result above the reference is therefore as suspicious as a result below it.
        assert!(top_1 <= REFERENCE_TOP_1 + 1, "top-1 {top_1}, reference {REFERENCE_TOP_1}");
    }
    pipeline.stop().await.unwrap();
}
