//! Reads the preprocessing of timm.

use super::hugging_face::{CONFIG_FILE, TimmConfig};
use super::preprocessing::{
    IMAGENET_MEAN, IMAGENET_STD, Normalisation, Preprocessing, Resize, Setting, TORCHVISION_CROP_FRACTION,
    divide_by_fraction, read_channels,
};

fn name_key(key: &str) -> String {
    format!("`pretrained_cfg.{key}` of {CONFIG_FILE}")
}

/// Returns the source of a value: its key, or that it is assumed because the file has no such key.
fn name_source(key: &str, is_present: bool) -> String {
    if is_present {
        name_key(key)
    } else {
        format!("assumed, because `pretrained_cfg` of {CONFIG_FILE} has no `{key}`")
    }
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
    let resize_source = if resize == Resize::Squash {
        name_key("crop_mode")
    } else {
        name_source("crop_pct", config.crop_pct.is_some())
    };
    let missing_key = [("mean", config.mean.is_some()), ("std", config.std.is_some())];
    let missing_key = missing_key.into_iter().find(|(_, is_present)| !is_present);
    let (normalisation_key, is_present) = missing_key.unwrap_or(("mean", true));
    Ok(Preprocessing {
        crop,
        resize: Setting::new(resize, resize_source),
        filter: Setting::new(filter, name_source("interpolation", config.interpolation.is_some())),
        channels: Setting::new("rgb", "timm"),
        normalisation: Setting::new(Normalisation { mean, std }, name_source(normalisation_key, is_present)),
        unmatched,
    })
}
