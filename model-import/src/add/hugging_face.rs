//! Reads the configuration files of Hugging Face.
//!
//! `config.json` describes the network: transformers stores the labels there, and timm its preprocessing.
//! `preprocessor_config.json` describes the preprocessing of transformers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Maximum size of a configuration file. That of a network with 21,843 classes has 2 MB.
const MAX_FILE_SIZE: u64 = 32 << 20;
/// Name of the file that describes the network.
pub(super) const CONFIG_FILE: &str = "config.json";
/// Name of the file that describes the preprocessing.
pub(super) const PREPROCESSOR_FILE: &str = "preprocessor_config.json";

/// The contents of the configuration files. A file that is missing is empty.
#[derive(Debug, Default)]
pub(super) struct Configuration {
    /// Contents of `config.json`.
    pub(super) network: NetworkConfig,
    /// Contents of `preprocessor_config.json`.
    pub(super) preprocessor: Option<PreprocessorConfig>,
}

/// The members of `config.json` that matter here.
#[derive(Debug, Default, Deserialize)]
pub(super) struct NetworkConfig {
    /// Labels of transformers, by the index of the output.
    pub(super) id2label: Option<BTreeMap<usize, String>>,
    /// Labels of timm, in the order of the outputs.
    pub(super) label_names: Option<Vec<String>>,
    /// `multi_label_classification` for a network with a sigmoid per class.
    pub(super) problem_type: Option<String>,
    /// Preprocessing of timm.
    pub(super) pretrained_cfg: Option<TimmConfig>,
}

/// The preprocessing of a network of timm.
#[derive(Debug, Deserialize)]
pub(super) struct TimmConfig {
    /// Channels, height and width.
    pub(super) input_size: Option<[u32; 3]>,
    pub(super) interpolation: Option<String>,
    pub(super) crop_pct: Option<f64>,
    pub(super) crop_mode: Option<String>,
    pub(super) mean: Option<Vec<f64>>,
    pub(super) std: Option<Vec<f64>>,
}

/// The members of `preprocessor_config.json` that matter here.
#[derive(Debug, Deserialize)]
pub(super) struct PreprocessorConfig {
    #[serde(alias = "feature_extractor_type")]
    pub(super) image_processor_type: Option<String>,
    pub(super) do_resize: Option<bool>,
    pub(super) size: Option<SizeValue>,
    pub(super) crop_pct: Option<f64>,
    /// Number of Pillow's filter.
    pub(super) resample: Option<u32>,
    pub(super) do_center_crop: Option<bool>,
    pub(super) crop_size: Option<SizeValue>,
    pub(super) do_rescale: Option<bool>,
    pub(super) rescale_factor: Option<f64>,
    pub(super) rescale_offset: Option<bool>,
    pub(super) do_normalize: Option<bool>,
    pub(super) image_mean: Option<Vec<f64>>,
    pub(super) image_std: Option<Vec<f64>>,
    pub(super) include_top: Option<bool>,
    pub(super) do_flip_channel_order: Option<bool>,
}

/// A size in pixels. Older files have a number.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
pub(super) enum SizeValue {
    Number(u32),
    Sides { height: u32, width: u32 },
    ShortestEdge { shortest_edge: u32 },
}

/// Reads the configuration files in `folder`. Appends a message to `problems` for each file that is invalid.
pub(super) fn read(folder: Option<&Path>, problems: &mut Vec<String>) -> Configuration {
    let Some(folder) = folder else {
        return Configuration::default();
    };
    let [network_path, preprocessor_path] = [CONFIG_FILE, PREPROCESSOR_FILE].map(|name| folder.join(name));
    if !network_path.is_file() && !preprocessor_path.is_file() {
        problems.push(format!(
            "{} has neither {CONFIG_FILE} nor {PREPROCESSOR_FILE}: expected the folder of a model from Hugging Face",
            folder.display()
        ));
    }
    Configuration {
        network: read_json(&network_path, problems).unwrap_or_default(),
        preprocessor: read_json(&preprocessor_path, problems),
    }
}

/// Reads a JSON file. Returns `None` if there is no such file, or if it is invalid.
fn read_json<T: DeserializeOwned>(path: &Path, problems: &mut Vec<String>) -> Option<T> {
    if !path.is_file() {
        return None;
    }
    let mut text = String::new();
    let outcome = File::open(path).and_then(|file| file.take(MAX_FILE_SIZE + 1).read_to_string(&mut text));
    let parsed = match outcome {
        Err(error) => Err(error.to_string()),
        Ok(size) if size as u64 > MAX_FILE_SIZE => Err(format!("it has more than {MAX_FILE_SIZE} bytes")),
        Ok(_) => serde_json::from_str(&text).map_err(|error| error.to_string()),
    };
    parsed.map_err(|reason| problems.push(format!("cannot read {}: {reason}", path.display()))).ok()
}
