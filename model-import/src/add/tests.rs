//! Tests the choice of the preprocessing and of the labels.

use super::hugging_face::{Configuration, NetworkConfig, PreprocessorConfig};
use super::labels;
use super::preprocessing::{KerasMode, Preprocessing, Recipe, Resize, read_configured_size};
use crate::graph::proto::{self, NodeExt as _};
use crate::graph::{self, InputValues, Report, SimplifyOptions};

/// Returns the report of a network for images of `side` pixels.
fn report(side: i64) -> Report {
    report_of_size([side; 2])
}

/// Returns the report of a network for images of this height and width.
fn report_of_size([height, width]: [i64; 2]) -> Report {
    let mut model = onnx_proto::ModelProto::default();
    model.opset_import.push(Default::default());
    model.opset_import[0].version = 13;
    let graph = model.graph.mut_or_insert_default();
    graph.initializer = vec![proto::float_tensor("kernel", &[2, 3, 1, 1], &[0.1; 6])];
    graph.node = vec![
        proto::node("Conv", &["image", "kernel"], &["a"]),
        proto::node("GlobalAveragePool", &["a"], &["b"]),
        proto::node("Flatten", &["b"], &["y"]).with_int("axis", 1),
    ];
    graph.input = vec![proto::value_info("image", &[None, Some(3), Some(height), Some(width)])];
    graph.output = vec![proto::value_info("y", &[None, Some(2)])];
    graph::simplify(model, &SimplifyOptions::default()).unwrap().report
}

/// Chooses the preprocessing from the text of a `preprocessor_config.json`.
fn choose(side: i64, preprocessor: &str) -> Result<Preprocessing, Vec<String>> {
    let preprocessor: PreprocessorConfig = serde_json::from_str(preprocessor).unwrap();
    let configuration = Configuration { preprocessor: Some(preprocessor), ..Default::default() };
    let size = read_configured_size(None, &configuration);
    Preprocessing::choose(&report(side), size.as_ref(), &configuration, &Recipe::Torchvision)
}

fn choose_recipe(recipe: Recipe) -> Preprocessing {
    Preprocessing::choose(&report(224), None, &Configuration::default(), &recipe).unwrap()
}

fn assert_near(actual: [f64; 3], expected: [f64; 3]) {
    let is_near = actual.iter().zip(expected).all(|(actual, expected)| (actual - expected).abs() < 1e-6);
    assert!(is_near, "{actual:?} is not {expected:?}");
}

#[test]
fn vit_is_squashed_and_normalised_to_one() {
    let chosen = choose(
        224,
        r#"{"image_processor_type":"ViTImageProcessor","do_resize":true,"size":{"height":224,"width":224},
            "resample":2,"do_rescale":true,"rescale_factor":0.00392156862745098,"do_normalize":true,
            "image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5]}"#,
    )
    .unwrap();
    assert_eq!(chosen.resize.value, Resize::Squash);
    assert_eq!(chosen.filter.value, "bilinear");
    assert_near(chosen.normalisation.value.mean, [0.5; 3]);
    assert_near(chosen.normalisation.value.std, [0.5; 3]);
    assert!(chosen.normalisation.source.contains("image_mean"), "{chosen:?}");
    assert_eq!(chosen.unmatched, Vec::<String>::new());
}

#[test]
fn convnext_below_384_resizes_by_its_crop_fraction() {
    let chosen = choose(
        224,
        r#"{"image_processor_type":"ConvNextImageProcessor","size":{"shortest_edge":224},"crop_pct":0.875,
            "resample":3,"do_normalize":true,"image_mean":[0.485,0.456,0.406],"image_std":[0.229,0.224,0.225]}"#,
    )
    .unwrap();
    assert_eq!(chosen.resize.value, Resize::ShorterSide(256));
    assert_eq!(chosen.filter.value, "bicubic");
    let squashed =
        choose(384, r#"{"image_processor_type":"ConvNextImageProcessor","size":{"shortest_edge":384}}"#);
    assert_eq!(squashed.unwrap().resize.value, Resize::Squash);
}

#[test]
fn mobilevit_has_flipped_channels_and_no_normalisation() {
    let chosen = choose(
        256,
        r#"{"feature_extractor_type":"MobileViTFeatureExtractor","do_center_crop":true,"crop_size":256,
            "do_flip_channel_order":true,"do_resize":true,"resample":2,"size":288}"#,
    )
    .unwrap();
    assert_eq!(chosen.resize.value, Resize::ShorterSide(288));
    assert_eq!(chosen.channels.value, "bgr");
    assert_near(chosen.normalisation.value.mean, [0.0; 3]);
    assert_near(chosen.normalisation.value.std, [1.0; 3]);
}

#[test]
fn clip_resizes_the_shorter_side_and_crops() {
    let chosen = choose(
        224,
        r#"{"image_processor_type":"CLIPImageProcessor","size":{"shortest_edge":256},"do_center_crop":true,
            "crop_size":{"height":224,"width":224},"resample":3}"#,
    );
    assert_eq!(chosen.unwrap().resize.value, Resize::ShorterSide(256));
}

#[test]
fn rescaling_is_part_of_the_normalisation() {
    let chosen =
        choose(224, r#"{"size":224,"do_rescale":false,"image_mean":[127.5],"image_std":[127.5]}"#).unwrap();
    assert_near(chosen.normalisation.value.mean, [0.5; 3]);
    assert_near(chosen.normalisation.value.std, [0.5; 3]);
    let offset =
        r#"{"size":224,"rescale_factor":0.00784313725490196,"rescale_offset":true,"do_normalize":false}"#;
    let chosen = choose(224, offset).unwrap();
    assert_near(chosen.normalisation.value.mean, [0.5; 3]);
    assert_near(chosen.normalisation.value.std, [0.5; 3]);
}

#[test]
fn every_contradiction_is_reported() {
    let problems = choose(
        224,
        r#"{"size":{"height":384,"width":384},"do_normalize":true,"image_std":[0.5,0.5],"rescale_factor":0}"#,
    )
    .unwrap_err();
    for part in ["384x384", "image_mean", "2 numbers", "rescale_factor"] {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:?}");
    }
}

#[test]
fn what_no_setting_expresses_is_unmatched() {
    let chosen = choose(
        224,
        r#"{"image_processor_type":"DeiTImageProcessor","size":256,"do_center_crop":true,"crop_size":224,"resample":4}"#,
    )
    .unwrap();
    assert_eq!(chosen.resize.value, Resize::ShorterSide(256));
    for part in ["squashes the image to 256x256", "`resample`"] {
        assert!(chosen.unmatched.iter().any(|property| property.contains(part)), "{part}: {chosen:?}");
    }
}

#[test]
fn size_of_the_input_comes_from_the_user_or_from_a_configuration_file() {
    let read = |side, text: &str| {
        let preprocessor = Some(serde_json::from_str(text).unwrap());
        read_configured_size(side, &Configuration { preprocessor, ..Default::default() })
            .map(|size| size.value)
    };
    assert_eq!(read(None, r#"{"size":{"height":96,"width":128}}"#), Some([96, 128]));
    assert_eq!(read(Some(64), r#"{"size":224}"#), Some([64, 64]));
    assert_eq!(read(None, r#"{"size":{"shortest_edge":256},"crop_size":224}"#), Some([224, 224]));
    assert_eq!(read(None, r#"{"size":{"shortest_edge":256}}"#), None);
}

#[test]
fn recipes_of_the_libraries_are_their_defaults() {
    let torchvision = choose_recipe(Recipe::Torchvision);
    assert_eq!((torchvision.resize.value, torchvision.filter.value), (Resize::ShorterSide(256), "bilinear"));
    let timm = choose_recipe(Recipe::Timm { crop_fraction: 0.9 });
    assert_eq!((timm.resize.value, timm.filter.value), (Resize::ShorterSide(248), "bicubic"));
    let caffe = choose_recipe(Recipe::Keras(KerasMode::Caffe));
    assert_eq!((caffe.resize.value, caffe.channels.value), (Resize::Squash, "bgr"));
    assert_near(caffe.normalisation.value.mean.map(|mean| mean * 255.0), [103.939, 116.779, 123.68]);
    let tf = choose_recipe(Recipe::Keras(KerasMode::Tf)).normalisation.value;
    assert_eq!((tf.mean, tf.std), ([0.5; 3], [0.5; 3]));
}

#[test]
fn input_that_is_not_square_is_cropped_by_a_fraction() {
    let choose = |recipe, configuration: &Configuration| {
        let report = report_of_size([256, 128]);
        Preprocessing::choose(&report, None, configuration, &recipe).unwrap().resize.value
    };
    let none = Configuration::default();
    assert_eq!(choose(Recipe::Torchvision, &none), Resize::CropFraction(0.875));
    assert_eq!(choose(Recipe::Timm { crop_fraction: 0.9 }, &none), Resize::CropFraction(0.9));
    assert_eq!(choose(Recipe::Keras(KerasMode::Tf), &none), Resize::Squash);
    let preprocessor = serde_json::from_str(r#"{"do_resize":false,"size":{"height":256,"width":128}}"#);
    let configuration = Configuration { preprocessor: Some(preprocessor.unwrap()), ..Default::default() };
    assert_eq!(choose(Recipe::Torchvision, &configuration), Resize::CropFraction(1.0));
}

#[test]
fn value_without_a_key_is_assumed() {
    let config =
        r#"{"image_processor_type":"MobileViTImageProcessor","size":{"shortest_edge":288},"crop_size":256}"#;
    let chosen = choose(256, config).unwrap();
    assert_eq!(chosen.channels.value, "bgr");
    let convnext =
        choose(224, r#"{"image_processor_type":"ConvNextImageProcessor","size":{"shortest_edge":224}}"#);
    let network = serde_json::from_str(r#"{"pretrained_cfg":{"input_size":[3,224,224]}}"#).unwrap();
    let configuration = Configuration { network, ..Default::default() };
    let timm = Preprocessing::choose(&report(224), None, &configuration, &Recipe::Torchvision).unwrap();
    let keras = choose_recipe(Recipe::Keras(KerasMode::Tf));
    for (source, key) in [
        (&chosen.channels.source, "`do_flip_channel_order`"),
        (&chosen.normalisation.source, "`rescale_factor`"),
        (&convnext.unwrap().resize.source, "`crop_pct`"),
        (&timm.resize.source, "`crop_pct`"),
        (&timm.filter.source, "`interpolation`"),
        (&timm.normalisation.source, "`mean`"),
        (&keras.filter.source, "`load_img`"),
    ] {
        assert!(source.starts_with("assumed") && source.contains(key), "{source}");
    }
}

#[test]
fn timm_configuration_wins_over_the_recipe() {
    let network: NetworkConfig = serde_json::from_str(
        r#"{"pretrained_cfg":{"input_size":[3,224,224],"interpolation":"bilinear","crop_pct":0.95,"crop_mode":"center",
            "mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5]}}"#,
    )
    .unwrap();
    let configuration = Configuration { network, ..Default::default() };
    let recipe = Recipe::Timm { crop_fraction: 0.875 };
    let chosen = Preprocessing::choose(&report(224), None, &configuration, &recipe).unwrap();
    assert_eq!((chosen.resize.value, chosen.filter.value), (Resize::ShorterSide(235), "bilinear"));
    assert_eq!(chosen.normalisation.value.mean, [0.5; 3]);
}

fn labels_of(network: &str, class_count: usize) -> Result<labels::ChosenLabels, String> {
    let network = serde_json::from_str(network).unwrap();
    labels::choose(None, &Configuration { network, ..Default::default() }, Some(class_count))
}

#[test]
fn labels_come_from_id2label_in_the_order_of_the_outputs() {
    let labels =
        labels_of(r#"{"id2label":{"1":"dog\tor\nwolf","0":"cat","10":"","2":"bird"}}"#, 4).unwrap_err();
    assert!(labels.contains("numbers are not 0 to 3"), "{labels}");
    let labels = labels_of(r#"{"id2label":{"1":"dog\tor\nwolf","0":"cat"}}"#, 2).unwrap();
    assert_eq!(crate::labels::format(&labels.labels), "cat\ndog or wolf\n");
    let error = labels_of(r#"{"id2label":{"0":"cat"}}"#, 2).unwrap_err();
    assert!(error.contains("1 labels") && error.contains("2 classes"), "{error}");
}

#[test]
fn binary_classifier_may_have_labels_for_both_classes() {
    for (network, expected) in [
        (r#"{"id2label":{"0":"cat","1":"dog"}}"#, "cat\ndog\n"),
        (r#"{"id2label":{"0":"dog"}}"#, "dog\n"),
        ("{}", "class_0\n"),
    ] {
        assert_eq!(crate::labels::format(&labels_of(network, 1).unwrap().labels), expected);
    }
    let error = labels_of(r#"{"label_names":["a","b","c"]}"#, 1).unwrap_err();
    assert!(error.contains("3 labels") && error.contains("expected two labels"), "{error}");
}

#[test]
fn unknown_labels_are_numbered_and_said_to_be_so() {
    let labels = labels_of("{}", 3).unwrap();
    assert_eq!(crate::labels::format(&labels.labels), "class_0\nclass_1\nclass_2\n");
    assert!(labels.assumption.contains("no labels are known"), "{labels:?}");
}

#[test]
fn inputs_of_one_channel_and_of_bytes_get_settings_that_fit() {
    let choose_for = |report: &Report| {
        Preprocessing::choose(report, None, &Configuration::default(), &Recipe::Torchvision).unwrap()
    };
    let grey = choose_for(&Report { channels: 1, ..report(28) });
    assert_eq!(grey.channels.value, "grey");
    assert_near(grey.normalisation.value.mean, [0.0; 3]);
    assert_near(grey.normalisation.value.std, [1.0; 3]);
    let bytes = choose_for(&Report { input_values: InputValues::Bytes, ..report(224) });
    assert_near(bytes.normalisation.value.mean, [0.0; 3]);
    assert_near(bytes.normalisation.value.std, [1.0 / 255.0; 3]);
}
