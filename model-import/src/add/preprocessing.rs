//! Chooses the preprocessing of a new model from configuration files or from the recipe of a library.

use super::hugging_face::Configuration;
use super::{timm, transformers};
use crate::graph::{InputValues, Report};

/// Mean of ImageNet's training images, which torchvision, timm and Keras subtract.
pub(super) const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet's training images.
pub(super) const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];
/// Crop fraction of torchvision's recipe: 224 of 256 pixels.
pub(super) const TORCHVISION_CROP_FRACTION: f64 = 0.875;

/// The preprocessing that a library uses by default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Recipe {
    /// torchvision's recipe for ImageNet.
    Torchvision,
    /// timm's defaults.
    Timm {
        /// The network's input as a fraction of the resized image.
        crop_fraction: f64,
    },
    /// Keras' `preprocess_input`.
    Keras(KerasMode),
}

/// The modes of Keras' `preprocess_input`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum KerasMode {
    /// ImageNet's mean and standard deviation (DenseNet).
    Torch,
    /// From -1 to 1 (MobileNet, MobileNetV2, Inception, Xception, NASNet, ResNetV2).
    Tf,
    /// BGR minus a mean (ResNet, VGG).
    Caffe,
    /// From 0 to 255, because the network itself normalises (EfficientNet, MobileNetV3, ConvNeXt).
    Raw,
}

/// A value, and a description of its source.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting<T> {
    pub(super) value: T,
    pub(super) source: String,
}

impl<T> Setting<T> {
    pub(super) fn new(value: T, source: impl Into<String>) -> Self {
        Self { value, source: source.into() }
    }
}

/// The resize before the crop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Resize {
    /// The shorter side gets this length in pixels.
    ShorterSide(u32),
    /// The image covers the network's input divided by this number. For an input that is not square, where the length
    /// of a shorter side would leave the other side too short.
    CropFraction(f64),
    /// The image gets the size of the network's input.
    Squash,
}

/// The numbers that turn a byte into a value of the input: `(byte / 255 - mean) / std`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Normalisation {
    pub(super) mean: [f64; 3],
    pub(super) std: [f64; 3],
}

/// The preprocessing of a model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Preprocessing {
    /// Height and width of the network's input.
    pub(super) crop: Setting<[u32; 2]>,
    pub(super) resize: Setting<Resize>,
    /// The filter's name in Pillow.
    pub(super) filter: Setting<&'static str>,
    /// `rgb`, `bgr` or `grey`.
    pub(super) channels: Setting<&'static str>,
    pub(super) normalisation: Setting<Normalisation>,
    /// Properties that no setting expresses.
    pub(super) unmatched: Vec<String>,
}

impl Preprocessing {
    /// Chooses the preprocessing.
    ///
    /// # Errors
    /// Returns a message for each setting that is missing or contradicts the graph.
    pub(super) fn choose(
        report: &Report,
        configured_size: Option<&Setting<[u32; 2]>>,
        configuration: &Configuration,
        recipe: &Recipe,
    ) -> Result<Self, Vec<String>> {
        let crop = [report.height, report.width].map(|side| u32::try_from(side).unwrap_or(0));
        let contradiction = configured_size.filter(|size| size.value != crop).map(|size| {
            let [[height, width], [graph_height, graph_width]] = [size.value, crop];
            format!(
                "{} is {height}x{width} (height x width), but the input of the graph is \
                 {graph_height}x{graph_width}: expected the configuration of this network; export the network again \
                 with the right size",
                size.source
            )
        });
        let crop = Setting::new(crop, format!("the input {:?} of the graph", report.input_name));
        let chosen = if let Some(config) = &configuration.preprocessor {
            transformers::choose(config, crop)
        } else if let Some(config) = &configuration.network.pretrained_cfg {
            timm::choose(config, crop)
        } else {
            from_recipe(recipe, crop)
        };
        let chosen = chosen.map(|preprocessing| preprocessing.adapt_to_input(report));
        match (chosen, contradiction) {
            (chosen, None) => chosen,
            (chosen, Some(contradiction)) => {
                Err(chosen.err().into_iter().flatten().chain([contradiction]).collect())
            }
        }
    }
}

impl Preprocessing {
    /// Replaces settings that do not fit the graph's input: for one channel, and for bytes that the graph normalises.
    fn adapt_to_input(mut self, report: &Report) -> Self {
        let input = format!("the input {:?} of the graph", report.input_name);
        let are_equal = |values: [f64; 3]| values == [values[0]; 3];
        if report.channels == 1 {
            self.channels = Setting::new("grey", input.clone());
            let Normalisation { mean, std } = self.normalisation.value;
            if !(are_equal(mean) && are_equal(std)) {
                let from_0_to_1 = Normalisation { mean: [0.0; 3], std: [1.0; 3] };
                self.normalisation = Setting::new(from_0_to_1, "assumed 0 to 1, because the input is grey");
            }
        }
        if report.input_values == InputValues::Bytes {
            let bytes = Normalisation { mean: [0.0; 3], std: [1.0 / 255.0; 3] };
            self.normalisation =
                Setting::new(bytes, format!("{input}, which takes bytes and normalises them"));
        }
        self
    }
}

/// Returns the size of the network's input that the user or a configuration file states.
pub(super) fn read_configured_size(
    side: Option<u32>,
    configuration: &Configuration,
) -> Option<Setting<[u32; 2]>> {
    if let Some(side) = side {
        return Some(Setting::new([side; 2], "--crop"));
    }
    match (&configuration.preprocessor, &configuration.network.pretrained_cfg) {
        (Some(config), _) => transformers::read_size(config),
        (None, Some(config)) => timm::read_size(config),
        (None, None) => None,
    }
}

fn from_recipe(recipe: &Recipe, crop: Setting<[u32; 2]>) -> Result<Preprocessing, Vec<String>> {
    let imagenet = Normalisation { mean: IMAGENET_MEAN, std: IMAGENET_STD };
    let (source, resize, filter, normalisation) = match *recipe {
        Recipe::Torchvision => {
            let resize = divide_by_fraction(crop.value, TORCHVISION_CROP_FRACTION)?;
            ("torchvision's recipe for ImageNet, because nothing else is known", resize, "bilinear", imagenet)
        }
        Recipe::Timm { crop_fraction } => {
            let resize = divide_by_fraction(crop.value, crop_fraction)?;
            (
                "timm's default; many networks differ: give their config.json with --config",
                resize,
                "bicubic",
                imagenet,
            )
        }
        Recipe::Keras(mode) => {
            let normalisation = match mode {
                KerasMode::Torch => imagenet,
                KerasMode::Tf => Normalisation { mean: [0.5; 3], std: [0.5; 3] },
                KerasMode::Caffe => Normalisation {
                    mean: [103.939, 116.779, 123.68].map(|mean| mean / 255.0),
                    std: [1.0 / 255.0; 3],
                },
                KerasMode::Raw => Normalisation { mean: [0.0; 3], std: [1.0 / 255.0; 3] },
            };
            (
                "Keras, which loads an image at the size of the input",
                Resize::Squash,
                "bilinear",
                normalisation,
            )
        }
    };
    let filter_source = match *recipe {
        Recipe::Keras(_) => {
            "assumed, because `image_dataset_from_directory` of Keras uses it; `load_img` uses \"nearest\" by default"
        }
        Recipe::Torchvision | Recipe::Timm { .. } => source,
    };
    let channels = if *recipe == Recipe::Keras(KerasMode::Caffe) { "bgr" } else { "rgb" };
    Ok(Preprocessing {
        crop,
        resize: Setting::new(resize, source),
        filter: Setting::new(filter, filter_source),
        channels: Setting::new(channels, source),
        normalisation: Setting::new(normalisation, source),
        unmatched: Vec::new(),
    })
}

/// Returns the resize that leaves the smallest image of which the crop is a part.
pub(super) fn cover(crop: [u32; 2]) -> Resize {
    match crop {
        [height, width] if height == width => Resize::ShorterSide(height),
        _ => Resize::CropFraction(1.0),
    }
}

/// Returns the resize to an image of which the crop is this fraction.
pub(super) fn divide_by_fraction(crop: [u32; 2], fraction: f64) -> Result<Resize, Vec<String>> {
    if !(fraction > 0.1 && fraction <= 1.0) {
        return Err(vec![format!("the crop fraction is {fraction}, expected a number from 0.1 to 1")]);
    }
    let [height, width] = crop;
    if height != width {
        return Ok(Resize::CropFraction(fraction));
    }
    let side = (f64::from(height) / fraction).floor();
    // At most ten times a `u32`, and clamped.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the number is in the range")]
    let side = side.min(f64::from(u32::MAX)) as u32;
    Ok(Resize::ShorterSide(side))
}

/// Returns three numbers, or `default` if there are none. One number stands for three equal ones.
pub(super) fn read_channels(
    values: Option<&[f64]>,
    default: [f64; 3],
    key: &str,
    problems: &mut Vec<String>,
) -> [f64; 3] {
    match values {
        None => default,
        Some([value]) => [*value; 3],
        Some([red, green, blue]) => [*red, *green, *blue],
        Some(values) => {
            problems.push(format!("{key} has {} numbers, expected 1 or 3", values.len()));
            default
        }
    }
}
