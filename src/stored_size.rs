//! The size of the stored pictures, which follows the model.
//!
//! preprocess knows no models, and classify knows nothing of stored pictures. This module passes the size on.

use std::num::NonZeroU32;

use classify::pixels::Geometry;

/// Returns the settings of preprocess, with a stored size that is enough for the model's `geometry`.
///
/// An explicit setting is not changed. If it is too small for the model, the log gets a warning.
pub(crate) fn fit_to_model(settings: preprocess::Settings, geometry: Geometry) -> preprocess::Settings {
    let needed = NonZeroU32::new(geometry.min_shorter_side()).unwrap_or(NonZeroU32::MIN);
    match settings.preprocess_shorter_side {
        Some(side) => {
            if side < needed {
                tracing::warn!(
                    shorter_side = side,
                    needed,
                    model = classify::model::spec::NAME,
                    "PREPROCESS_SHORTER_SIDE is less than the model needs, so classify enlarges every stored picture; \
                     remove the setting, or set it to at least {needed}"
                );
            }
            settings
        }
        None => preprocess::Settings {
            preprocess_shorter_side: Some(needed.max(preprocess::Settings::DEFAULT_SHORTER_SIDE)),
            ..settings
        },
    }
}

#[cfg(test)]
mod tests {
    use classify::{
        model::GEOMETRY,
        pixels::{ChannelOrder, CropShape, Filter, Resize},
    };
    use platform::telemetry::CapturedLog;
    use preprocess::Settings;

    use super::*;

    fn geometry(resize: Resize, height: u32, width: u32) -> Geometry {
        let crop = CropShape { height, width, channels: ChannelOrder::Rgb };
        Geometry { resize, filter: Filter::Bicubic, crop }
    }

    fn with_shorter_side(side: u32) -> Settings {
        Settings { preprocess_shorter_side: NonZeroU32::new(side), ..Settings::default() }
    }

    #[test]
    fn stored_size_follows_a_model_that_needs_more() {
        for (resize, side) in [
            (Resize::ShorterSide(384), 384),
            (Resize::Squash, 320),
            (Resize::Letterbox([0; 3]), 300),
            (Resize::ShorterSide(32), 256),
        ] {
            let settings = fit_to_model(Settings::default(), geometry(resize, 300, 320));
            assert_eq!(settings.recipe().shorter_side, side, "{resize:?}");
        }
    }

    #[test]
    fn ids_of_a_model_that_needs_at_most_the_default_do_not_change() {
        let needs_default = geometry(Resize::ShorterSide(256), 224, 224);
        let settings = fit_to_model(Settings::default(), needs_default);
        assert_eq!(settings.recipe().id_text(), Settings::default().recipe().id_text());
        // The models in the repository need at most the default.
        assert_eq!(fit_to_model(Settings::default(), GEOMETRY).recipe(), Settings::default().recipe());
    }

    #[test]
    fn explicit_setting_wins_and_is_a_warning_if_it_is_too_small() {
        let needs_384 = geometry(Resize::ShorterSide(384), 384, 384);
        let log = CapturedLog::start("warn");
        for side in [384, 500] {
            assert_eq!(fit_to_model(with_shorter_side(side), needs_384), with_shorter_side(side));
        }
        assert_eq!(log.take_lines(), Vec::<String>::new());
        assert_eq!(fit_to_model(with_shorter_side(256), needs_384), with_shorter_side(256));
        let lines = log.take_lines();
        let [warning] = lines.as_slice() else { panic!("{} lines: {lines:?}", lines.len()) };
        for part in ["PREPROCESS_SHORTER_SIDE", r#""needed":384"#, "at least 384"] {
            assert!(warning.contains(part), "{warning}");
        }
    }
}
