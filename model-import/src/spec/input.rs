//! The section `[input]` of a `model.toml`: how an image becomes the network's input.

use std::fmt;

use serde::Deserialize;

use crate::graph::ImageSize;

/// Largest side of the network's input, in pixels.
const MAX_SIDE: u32 = 65_535;

/// Preprocessing of an image.
///
/// The image is resized with `filter`, and the centre of the result is the network's input. Its bytes are then
/// normalised.
#[derive(Debug, Clone, PartialEq)]
pub struct InputSpec {
    /// Size of the network's input.
    pub crop: Size,
    /// The resize before the crop.
    pub resize: Resize,
    /// The filter of the resize.
    pub filter: Filter,
    /// Channels of the network's input, and their order.
    pub channels: Channels,
    /// The formula that turns a byte into a value of the network's input.
    pub normalisation: Normalisation,
}

/// Height and width in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Height in pixels.
    pub height: u32,
    /// Width in pixels.
    pub width: u32,
}

impl From<Size> for ImageSize {
    fn from(size: Size) -> Self {
        [size.height, size.width].map(i64::from)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.height == self.width {
            write!(out, "{}", self.height)
        } else {
            write!(out, "[{}, {}]", self.height, self.width)
        }
    }
}

/// The method that resizes an image before the crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// The shorter side gets this length in pixels, and the aspect ratio is kept.
    ShorterSide(u32),
    /// No side becomes shorter than that of the given size, one side gets this length, and the aspect ratio is kept.
    Cover(Size),
    /// The image gets the size of the crop. The aspect ratio is not kept.
    Squash,
    /// The whole image fits into the crop and keeps its aspect ratio. The rest has this colour: red, green and blue.
    Letterbox([u8; 3]),
}

/// The filter of the resize, by its name in Pillow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Pillow's BILINEAR.
    #[default]
    Bilinear,
    /// Pillow's BICUBIC.
    Bicubic,
    /// Pillow's LANCZOS.
    Lanczos,
    /// Pillow's NEAREST.
    Nearest,
}

/// Channels of the network's input, and their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Red, green and blue.
    #[default]
    Rgb,
    /// Blue, green and red.
    Bgr,
    /// One channel, the luma.
    Grey,
}

impl Channels {
    /// Returns the number of channels.
    #[must_use]
    pub fn count(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Grey => 1,
        }
    }
}

/// The formula that turns a byte into a value of the network's input, with a number for each channel.
#[derive(Debug, Clone, PartialEq)]
pub enum Normalisation {
    /// `(byte / 255 - mean) / std`
    MeanStd {
        /// Mean per channel.
        mean: Vec<f32>,
        /// Standard deviation per channel.
        std: Vec<f32>,
    },
    /// `byte * scale + offset`
    ScaleOffset {
        /// Factor per channel.
        scale: Vec<f32>,
        /// Summand per channel.
        offset: Vec<f32>,
    },
}

impl Normalisation {
    /// Returns true if the values stay at 0 to 255.
    #[must_use]
    pub fn keeps_bytes(&self) -> bool {
        let are = |values: &[f32], expected: f32| values.iter().all(|value| (value - expected).abs() < 1e-5);
        match self {
            Self::MeanStd { mean, std } => are(mean, 0.0) && are(std, 1.0 / 255.0),
            Self::ScaleOffset { scale, offset } => are(scale, 1.0) && are(offset, 0.0),
        }
    }
}

/// The section as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputSection {
    crop: CropValue,
    resize: Option<ResizeValue>,
    crop_fraction: Option<f64>,
    letterbox_color: Option<NumberOrList<u8>>,
    #[serde(default)]
    filter: Filter,
    #[serde(default)]
    channels: Channels,
    mean: Option<NumberOrList<f32>>,
    std: Option<NumberOrList<f32>>,
    scale: Option<NumberOrList<f32>>,
    offset: Option<NumberOrList<f32>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "expected a number of pixels, or [height, width]")]
enum CropValue {
    Side(u32),
    HeightAndWidth([u32; 2]),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a number of pixels, \"squash\" or \"letterbox\"")]
enum ResizeValue {
    ShorterSide(u32),
    Mode(ResizeMode),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ResizeMode {
    Squash,
    Letterbox,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a number, or a list of numbers with one for each channel")]
enum NumberOrList<T> {
    Number(T),
    List(Vec<T>),
}

impl<T: Copy + fmt::Debug> NumberOrList<T> {
    /// Returns a number for each of `count` channels. A single number is repeated.
    fn expand(&self, key: &str, count: usize) -> Result<Vec<T>, String> {
        let numbers = match self {
            Self::Number(number) => &[*number],
            Self::List(numbers) => numbers.as_slice(),
        };
        match *numbers {
            [number] => Ok(vec![number; count]),
            _ if numbers.len() == count => Ok(numbers.to_vec()),
            _ if count == 1 => Err(format!(
                "key `input.{key}` is {numbers:?}, expected one number, because `channels` is \"grey\""
            )),
            _ => Err(format!("key `input.{key}` is {numbers:?}, expected 1 or {count} numbers")),
        }
    }
}

impl InputSection {
    /// Checks the values.
    ///
    /// # Errors
    /// Returns a message that names the key, its value and the expected values.
    pub(super) fn check(&self) -> Result<InputSpec, String> {
        let crop = match self.crop {
            CropValue::Side(side) => Size { height: side, width: side },
            CropValue::HeightAndWidth([height, width]) => Size { height, width },
        };
        if [crop.height, crop.width].iter().any(|side| !(1..=MAX_SIDE).contains(side)) {
            return Err(format!("key `input.crop` is {crop}, expected 1 to {MAX_SIDE} pixels per side"));
        }
        Ok(InputSpec {
            crop,
            resize: self.resize(crop)?,
            filter: self.filter,
            channels: self.channels,
            normalisation: self.normalisation()?,
        })
    }

    fn resize(&self, crop: Size) -> Result<Resize, String> {
        let resize = match (&self.resize, self.crop_fraction) {
            (Some(_), Some(_)) => {
                return Err("the section `[input]` has `resize` and `crop_fraction`, expected one of them; \
                            `crop_fraction` stands for a resize of `crop` divided by it"
                    .into());
            }
            (None, None) => {
                return Err(
                    "the section `[input]` has no key `resize`, expected the length of the shorter side in \
                            pixels, \"squash\" or \"letterbox\"; or `crop_fraction` in its place"
                        .into(),
                );
            }
            (None, Some(fraction)) => resize_by_fraction(crop, fraction)?,
            (Some(ResizeValue::ShorterSide(side)), None) => check_shorter_side(*side, crop)?,
            (Some(ResizeValue::Mode(ResizeMode::Squash)), None) => Resize::Squash,
            (Some(ResizeValue::Mode(ResizeMode::Letterbox)), None) => Resize::Letterbox([0; 3]),
        };
        match (&self.letterbox_color, resize) {
            (None, _) => Ok(resize),
            (Some(color), Resize::Letterbox(_)) => {
                let color = color.expand("letterbox_color", 3)?;
                Ok(Resize::Letterbox([color[0], color[1], color[2]]))
            }
            (Some(_), _) => {
                Err("key `input.letterbox_color` needs `resize = \"letterbox\"`; remove the key".into())
            }
        }
    }

    fn normalisation(&self) -> Result<Normalisation, String> {
        let count = self.channels.count();
        let expand = |key, value: &NumberOrList<f32>| {
            let numbers = value.expand(key, count)?;
            match numbers.iter().all(|number| number.is_finite()) {
                true => Ok(numbers),
                false => Err(format!("key `input.{key}` is {numbers:?}, expected finite numbers")),
            }
        };
        match (&self.mean, &self.std, &self.scale, &self.offset) {
            (Some(mean), Some(std), None, None) => {
                let (mean, std) = (expand("mean", mean)?, expand("std", std)?);
                if std.iter().any(|std| *std <= 0.0) {
                    return Err(format!("key `input.std` is {std:?}, expected numbers greater than 0"));
                }
                Ok(Normalisation::MeanStd { mean, std })
            }
            (None, None, Some(scale), Some(offset)) => {
                let (scale, offset) = (expand("scale", scale)?, expand("offset", offset)?);
                if scale.contains(&0.0) {
                    return Err(format!("key `input.scale` is {scale:?}, expected numbers other than 0"));
                }
                Ok(Normalisation::ScaleOffset { scale, offset })
            }
            (mean, std, scale, offset) => {
                let keys = [("mean", mean), ("std", std), ("scale", scale), ("offset", offset)];
                let found: Vec<String> = keys
                    .iter()
                    .filter(|(_, value)| value.is_some())
                    .map(|(key, _)| format!("`{key}`"))
                    .collect();
                Err(format!(
                    "the section `[input]` has {}, expected `mean` and `std`, or `scale` and `offset`",
                    if found.is_empty() { "no normalisation".into() } else { found.join(", ") }
                ))
            }
        }
    }
}

fn check_shorter_side(side: u32, crop: Size) -> Result<Resize, String> {
    if side > MAX_SIDE {
        return Err(format!("key `input.resize` is {side}, expected at most {MAX_SIDE} pixels"));
    }
    if crop.height.max(crop.width) > side {
        return Err(format!(
            "key `input.crop` is {crop}, expected 1 to {side} pixels per side, because the resized image is only \
             {side} pixels in one direction (`input.resize`); \"squash\", \"letterbox\" and `crop_fraction` allow \
             other shapes"
        ));
    }
    Ok(Resize::ShorterSide(side))
}

/// Returns the resize of timm for a crop that is this fraction of the resized image.
///
/// Numbers are rounded down, as in timm.
fn resize_by_fraction(crop: Size, fraction: f64) -> Result<Resize, String> {
    let resized = |side: u32| (f64::from(side) / fraction).floor();
    let is_valid = fraction > 0.0
        && fraction <= 1.0
        && [crop.height, crop.width].iter().all(|side| resized(*side) <= f64::from(MAX_SIDE));
    if !is_valid {
        return Err(format!(
            "key `input.crop_fraction` is {fraction}, expected more than 0 and at most 1, so that the resized image \
             has at most {MAX_SIDE} pixels per side"
        ));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    let [height, width] = [crop.height, crop.width].map(|side| resized(side) as u32);
    Ok(if height == width { Resize::ShorterSide(height) } else { Resize::Cover(Size { height, width }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a section with this text, to which the keys that are required are added.
    fn read(text: &str) -> Result<InputSpec, String> {
        let section: InputSection = toml::from_str(text).map_err(|error| error.to_string())?;
        section.check()
    }

    const NORMAL: &str = "mean = [0.5, 0.4, 0.3]\nstd = 0.25\n";

    #[test]
    fn defaults_are_rgb_and_bilinear() {
        let input = read(&format!("crop = 224\nresize = 256\n{NORMAL}")).unwrap();
        assert_eq!(input.crop, Size { height: 224, width: 224 });
        assert_eq!(input.resize, Resize::ShorterSide(256));
        assert_eq!((input.filter, input.channels), (Filter::Bilinear, Channels::Rgb));
        let (mean, std) = (vec![0.5, 0.4, 0.3], vec![0.25; 3]);
        assert_eq!(input.normalisation, Normalisation::MeanStd { mean, std });
    }

    #[test]
    fn every_key_is_read() {
        let input = read(
            "crop = [28, 20]\nresize = \"letterbox\"\nletterbox_color = 114\nfilter = \"lanczos\"\n\
             channels = \"grey\"\nscale = 0.007843\noffset = [-1]\n",
        )
        .unwrap();
        assert_eq!(input.crop, Size { height: 28, width: 20 });
        assert_eq!(input.resize, Resize::Letterbox([114; 3]));
        assert_eq!((input.filter, input.channels), (Filter::Lanczos, Channels::Grey));
        let (scale, offset) = (vec![0.007_843], vec![-1.0]);
        assert_eq!(input.normalisation, Normalisation::ScaleOffset { scale, offset });
        assert_eq!(
            read(&format!(
                "crop = 9\nresize = \"squash\"\nchannels = \"bgr\"\nfilter = \"nearest\"\n{NORMAL}"
            ))
            .unwrap()
            .resize,
            Resize::Squash
        );
    }

    #[test]
    fn crop_fraction_is_the_resize_of_timm() {
        let resize = |crop: &str, fraction: &str| {
            read(&format!("crop = {crop}\ncrop_fraction = {fraction}\n{NORMAL}")).unwrap().resize
        };
        assert_eq!(resize("224", "0.875"), Resize::ShorterSide(256));
        assert_eq!(resize("224", "0.9"), Resize::ShorterSide(248));
        assert_eq!(resize("288", "1.0"), Resize::ShorterSide(288));
        assert_eq!(resize("[224, 112]", "0.95"), Resize::Cover(Size { height: 235, width: 117 }));
    }

    #[test]
    fn invalid_or_contradicting_values_name_their_key() {
        for (text, parts) in [
            ("crop = 224\nresize = 256\nmean = 0.5\n", ["`mean`", "`std`"]),
            ("crop = 224\nresize = 256\n", ["no normalisation", "`scale`"]),
            ("crop = 224\nresize = 256\nmean = 0\nstd = 1\nscale = 1\n", ["`scale`", "`mean` and `std`"]),
            ("crop = 224\nresize = 256\nmean = [0, 0]\nstd = 1\n", ["`input.mean`", "1 or 3 numbers"]),
            ("crop = 224\nresize = 256\nmean = 0\nstd = 0\n", ["`input.std`", "greater than 0"]),
            ("crop = 224\nresize = 256\nscale = 0\noffset = 1\n", ["`input.scale`", "other than 0"]),
            ("crop = 224\nresize = 256\nscale = 1\noffset = inf\n", ["`input.offset`", "finite"]),
            (
                "crop = 28\nresize = 28\nchannels = \"grey\"\nmean = [0, 0, 0]\nstd = 1\n",
                ["`input.mean`", "\"grey\""],
            ),
            ("crop = 224\nmean = 0\nstd = 1\n", ["`resize`", "`crop_fraction`"]),
            (
                "crop = 224\nresize = 256\ncrop_fraction = 0.9\nmean = 0\nstd = 1\n",
                ["`resize`", "one of them"],
            ),
            ("crop = 224\ncrop_fraction = 1.5\nmean = 0\nstd = 1\n", ["`input.crop_fraction`", "1.5"]),
            ("crop = 224\ncrop_fraction = 0.0001\nmean = 0\nstd = 1\n", ["`input.crop_fraction`", "65535"]),
            ("crop = [224, 300]\nresize = 256\nmean = 0\nstd = 1\n", ["`input.crop` is [224, 300]", "256"]),
            ("crop = [0, 300]\nresize = 256\nmean = 0\nstd = 1\n", ["`input.crop` is [0, 300]", "65535"]),
            ("crop = 224\nresize = 70000\nmean = 0\nstd = 1\n", ["`input.resize` is 70000", "65535"]),
            (
                "crop = 224\nresize = \"squash\"\nletterbox_color = 0\nmean = 0\nstd = 1\n",
                ["`input.letterbox_color`", "\"letterbox\""],
            ),
            ("crop = 224\nresize = \"stretch\"\nmean = 0\nstd = 1\n", ["resize", "\"squash\""]),
            ("crop = [1]\nresize = 256\nmean = 0\nstd = 1\n", ["crop", "[height, width]"]),
            ("crop = 224\nresize = 256\nfilter = \"area\"\nmean = 0\nstd = 1\n", ["area", "bicubic"]),
            ("crop = 224\nresize = 256\nchannels = \"rgba\"\nmean = 0\nstd = 1\n", ["rgba", "grey"]),
            (
                "crop = 1\nresize = \"letterbox\"\nletterbox_color = [1, 2, 300]\nmean = 0\nstd = 1\n",
                ["letterbox_color", "number"],
            ),
        ] {
            let error = read(text).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
    }
}
