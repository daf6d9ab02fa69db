//! Reports images that are smaller than the model needs.

use std::sync::atomic::{AtomicBool, Ordering};

use metrics::counter;

use crate::{model::spec, pixels::Geometry};

/// Counts the images that are enlarged, and logs a warning for the first one.
///
/// A network recognises an enlarged image less well than an image that had the pixels. A bucket whose images are all
/// too small gives no other sign.
#[derive(Debug, Default)]
pub(crate) struct EnlargementReport {
    has_warned: AtomicBool,
}

impl EnlargementReport {
    /// Counts a `width` × `height` image that was enlarged.
    pub(crate) fn count(&self, width: u32, height: u32, geometry: Geometry) {
        counter!("classify_enlarged_images_total").increment(1);
        let needed = geometry.min_shorter_side();
        if self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::debug!(width, height, needed, "an image is enlarged for the model");
            return;
        }
        tracing::warn!(
            width,
            height,
            needed,
            model = spec::NAME,
            "an image is smaller than the model needs and is enlarged; images whose shorter side has at least \
             {needed} pixels are not. If preprocess stores the images, set PREPROCESS_SHORTER_SIDE={needed} there. \
             Further images are only counted, in classify_enlarged_images_total"
        );
    }
}

#[cfg(test)]
mod tests {
    use platform::telemetry::CapturedLog;

    use super::*;
    use crate::model::GEOMETRY;

    #[test]
    fn only_the_first_enlarged_image_is_a_warning_and_names_the_setting() {
        let log = CapturedLog::start("warn");
        let report = EnlargementReport::default();
        report.count(30, 20, GEOMETRY);
        report.count(31, 21, GEOMETRY);
        let lines = log.take_lines();
        let [warning] = lines.as_slice() else { panic!("{} lines: {lines:?}", lines.len()) };
        let setting = format!("PREPROCESS_SHORTER_SIDE={}", GEOMETRY.min_shorter_side());
        for part in [r#""width":30"#, r#""height":20"#, &setting] {
            assert!(warning.contains(part), "{warning}");
        }
    }
}
