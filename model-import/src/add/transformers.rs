//! Reads the preprocessing of transformers. The meaning of some keys depends on the class that reads the file.

use super::hugging_face::{PREPROCESSOR_FILE, PreprocessorConfig, SizeValue};
use super::preprocessing::{
    Normalisation, Preprocessing, Resize, Setting, TORCHVISION_CROP_FRACTION, cover, divide_by_fraction,
    read_channels,
};

/// Reads the `preprocessor_config.json` of transformers.
pub(super) fn choose(
    config: &PreprocessorConfig,
    crop: Setting<[u32; 2]>,
) -> Result<Preprocessing, Vec<String>> {
    let mut problems = Vec::new();
    let mut unmatched = Vec::new();
    let resize = read_resize(config, crop.value, &mut problems, &mut unmatched);
    let filter = match config.resample {
        Some(0) => Setting::new("nearest", name_key("resample")),
        Some(1) => Setting::new("lanczos", name_key("resample")),
        Some(2) => Setting::new("bilinear", name_key("resample")),
        Some(3) => Setting::new("bicubic", name_key("resample")),
        Some(number) => {
            unmatched.push(format!("{} is {number}; the filter is bilinear instead", name_key("resample")));
            Setting::new("bilinear", "the default of model.toml")
        }
        None => Setting::new("bilinear", format!("assumed, because {PREPROCESSOR_FILE} has no `resample`")),
    };
    let normalisation = read_normalisation(config, &mut problems);
    let channels = match config.do_flip_channel_order {
        Some(flips) => Setting::new(if flips { "bgr" } else { "rgb" }, name_key("do_flip_channel_order")),
        // MobileViTImageProcessor flips unless the file forbids it. No other class does.
        None => Setting::new(
            if is_class(config, &["MobileViT"]) { "bgr" } else { "rgb" },
            format!("assumed, because {PREPROCESSOR_FILE} has no `do_flip_channel_order`"),
        ),
    };
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Preprocessing { crop, resize, filter, channels, normalisation, unmatched })
}

fn name_key(key: &str) -> String {
    format!("`{key}` of {PREPROCESSOR_FILE}")
}

/// Returns true if the file is for one of these classes of transformers. A name may omit its ending.
fn is_class(config: &PreprocessorConfig, names: &[&str]) -> bool {
    let class = config.image_processor_type.as_deref().unwrap_or_default();
    names.iter().any(|name| class.starts_with(name))
}

/// Returns true if the image is cropped after the resize.
fn crops(config: &PreprocessorConfig) -> bool {
    config.do_center_crop.unwrap_or(config.crop_size.is_some())
}

/// Returns `size`. A number becomes the meaning that it has for the class.
fn interpret_size(config: &PreprocessorConfig) -> Option<SizeValue> {
    // These classes read a number as the length of the shorter side, and all others as a square.
    let shorter_side = ["CLIP", "ConvNext", "Levit", "MobileNetV1", "MobileNetV2", "MobileViT", "PoolFormer"];
    Some(match config.size? {
        SizeValue::Number(side) if is_class(config, &shorter_side) => {
            SizeValue::ShortestEdge { shortest_edge: side }
        }
        SizeValue::Number(side) => SizeValue::Sides { height: side, width: side },
        size => size,
    })
}

/// Returns the size of the network's input, or `None` if only the length of the shorter side is known.
pub(super) fn read_size(config: &PreprocessorConfig) -> Option<Setting<[u32; 2]>> {
    if let Some(size) = config.crop_size.filter(|_| crops(config)) {
        let sides = match size {
            SizeValue::Number(side) | SizeValue::ShortestEdge { shortest_edge: side } => [side; 2],
            SizeValue::Sides { height, width } => [height, width],
        };
        return Some(Setting::new(sides, name_key("crop_size")));
    }
    match interpret_size(config)? {
        SizeValue::Sides { height, width } => Some(Setting::new([height, width], name_key("size"))),
        SizeValue::ShortestEdge { shortest_edge } if is_class(config, &["ConvNext"]) => {
            Some(Setting::new([shortest_edge; 2], name_key("size")))
        }
        SizeValue::ShortestEdge { .. } | SizeValue::Number(_) => None,
    }
}

/// Reads the resize and the crop. Their meaning depends on the class of transformers that reads the file.
fn read_resize(
    config: &PreprocessorConfig,
    crop: [u32; 2],
    problems: &mut Vec<String>,
    unmatched: &mut Vec<String>,
) -> Setting<Resize> {
    let source = name_key("size");
    let shorter_side = |side: u32| Setting::new(Resize::ShorterSide(side), source.clone());
    let smaller_crop_side = crop[0].min(crop[1]);
    if config.do_resize == Some(false) {
        unmatched.push(format!(
            "{} is false; the shorter side is resized to the crop instead",
            name_key("do_resize")
        ));
        return Setting::new(cover(crop), source);
    }
    let crops = crops(config);
    let Some(size) = interpret_size(config) else {
        problems.push(format!("{PREPROCESSOR_FILE} has no `size`: expected the size of the resized image"));
        return Setting::new(cover(crop), source);
    };
    match size {
        SizeValue::Sides { height, width } if crops && [height, width] != crop => {
            unmatched.push(format!(
                "{source} squashes the image to {height}x{width} before the crop; the shorter side is resized instead"
            ));
            match cover(crop) {
                Resize::ShorterSide(side) => shorter_side(height.min(width).max(side)),
                resize => Setting::new(resize, source),
            }
        }
        SizeValue::Sides { .. } => Setting::new(Resize::Squash, source),
        // ConvNextImageProcessor crops to `size` after a resize, but squashes if `size` is 384 or more.
        SizeValue::ShortestEdge { shortest_edge } | SizeValue::Number(shortest_edge)
            if is_class(config, &["ConvNext"]) =>
        {
            if shortest_edge >= 384 {
                return Setting::new(
                    Resize::Squash,
                    format!("{source}, which ConvNext squashes from 384 on"),
                );
            }
            resize_by_fraction(crop, config.crop_pct, problems)
        }
        SizeValue::ShortestEdge { .. } if is_class(config, &["PoolFormer"]) => {
            resize_by_fraction(crop, config.crop_pct, problems)
        }
        SizeValue::ShortestEdge { shortest_edge } | SizeValue::Number(shortest_edge) => {
            // LevitImageProcessor resizes to 256/224 of `size`.
            let side = if is_class(config, &["Levit"]) {
                u32::try_from(u64::from(shortest_edge) * 256 / 224).unwrap_or(u32::MAX)
            } else {
                shortest_edge
            };
            if !crops {
                unmatched.push(format!(
                    "{source} keeps the aspect ratio without a crop; the image is cropped to the input of the graph"
                ));
            }
            if side < smaller_crop_side {
                problems.push(format!("{source} is {side}, but the input of the graph has {crop:?} pixels"));
            }
            shorter_side(side)
        }
    }
}

fn resize_by_fraction(crop: [u32; 2], fraction: Option<f64>, problems: &mut Vec<String>) -> Setting<Resize> {
    let source = if fraction.is_some() {
        name_key("crop_pct")
    } else {
        format!("assumed {TORCHVISION_CROP_FRACTION}, because {PREPROCESSOR_FILE} has no `crop_pct`")
    };
    let resize = divide_by_fraction(crop, fraction.unwrap_or(TORCHVISION_CROP_FRACTION));
    let resize = resize.map_err(|mut found| problems.append(&mut found));
    Setting::new(resize.unwrap_or(Resize::Squash), source)
}

/// Combines the rescaling of a byte and the normalisation after it.
fn read_normalisation(config: &PreprocessorConfig, problems: &mut Vec<String>) -> Setting<Normalisation> {
    let factor =
        if config.do_rescale == Some(false) { 1.0 } else { config.rescale_factor.unwrap_or(1.0 / 255.0) };
    if !(factor.is_finite() && factor > 0.0) {
        problems
            .push(format!("{} is {factor}, expected a number greater than 0", name_key("rescale_factor")));
    }
    let normalises = config.do_normalize.unwrap_or(config.image_mean.is_some());
    let (mut mean, mut std) = ([0.0; 3], [1.0; 3]);
    if normalises {
        let mut read = |values: &Option<Vec<f64>>, key: &str| match values {
            Some(values) => read_channels(Some(values), [1.0; 3], &name_key(key), problems),
            None => {
                problems.push(format!(
                    "{PREPROCESSOR_FILE} has no `{key}`, but `do_normalize` is true: add the numbers that the network \
                     was trained with"
                ));
                [1.0; 3]
            }
        };
        mean = read(&config.image_mean, "image_mean");
        std = read(&config.image_std, "image_std");
    }
    if config.rescale_offset == Some(true) {
        mean = mean.map(|mean| mean + 1.0);
    }
    // EfficientNetImageProcessor then divides by the standard deviation once more.
    if config.include_top == Some(true) {
        std = std.map(|std| std * std);
    }
    // (byte * factor - mean) / std is written as (byte / 255 - mean') / std'.
    let scale = 255.0 * factor;
    let normalisation =
        Normalisation { mean: mean.map(|mean| mean / scale), std: std.map(|std| std / scale) };
    let source = if normalises {
        name_key("image_mean")
    } else if config.rescale_factor.is_some() {
        name_key("rescale_factor")
    } else {
        format!("assumed, because {PREPROCESSOR_FILE} has neither `image_mean` nor `rescale_factor`")
    };
    Setting::new(normalisation, source)
}
