//! Reads the preprocessing of timm.

use super::hugging_face::{CONFIG_FILE, TimmConfig};
use super::preprocessing::{
    IMAGENET_MEAN, IMAGENET_STD, Normalisation, Preprocessing, Resize, Setting, TORCHVISION_CROP_FRACTION,
    divide_by_fraction, read_channels,
};

fn name_key(key: &str) -> String {
    format!("`pretrained_cfg.{key}` of {CONFIG_FILE}")
}

/// Returns the size of the network's input.
pub(super) fn read_size(config: &TimmConfig) -> Option<Setting<[u32; 2]>> {
    let [_, height, width] = config.input_size?;
    Some(Setting::new([height, width], name_key("input_size")))
}

/// Reads the `pretrained_cfg` of timm.
pub(super) fn choose(config: &TimmConfig, crop: Setting<[u32; 2]>) -> Result<Preprocessing, Vec<String>> {
    let mut problems = Vec::new();
    let mut unmatched = Vec::new();
    let fraction = config.crop_pct.unwrap_or(TORCHVISION_CROP_FRACTION);
    let resize = match config.crop_mode.as_deref() {
        None | Some("center") => {
            divide_by_fraction(crop.value, fraction).map_err(|found| problems.extend(found)).ok()
        }
        Some("squash") => Some(Resize::Squash),
        Some(mode) => {
            unmatched.push(format!(
                "{} is {mode:?}; the image is resized and cropped instead",
                name_key("crop_mode")
            ));
            divide_by_fraction(crop.value, fraction).map_err(|found| problems.extend(found)).ok()
        }
    };
    let filter = match config.interpolation.as_deref() {
        None | Some("bicubic") => "bicubic",
        Some("bilinear") => "bilinear",
        Some("nearest") => "nearest",
        Some("lanczos") => "lanczos",
        Some(filter) => {
            unmatched
                .push(format!("{} is {filter:?}; the filter is bicubic instead", name_key("interpolation")));
            "bicubic"
        }
    };
    let mean = read_channels(config.mean.as_deref(), IMAGENET_MEAN, &name_key("mean"), &mut problems);
    let std = read_channels(config.std.as_deref(), IMAGENET_STD, &name_key("std"), &mut problems);
    let Some(resize) = resize.filter(|_| problems.is_empty()) else {
        return Err(problems);
    };
    Ok(Preprocessing {
        crop,
        resize: Setting::new(resize, name_key("crop_pct")),
        filter: Setting::new(filter, name_key("interpolation")),
        channels: Setting::new("rgb", "timm"),
        normalisation: Setting::new(Normalisation { mean, std }, name_key("mean")),
        unmatched,
    })
}
