"""Hugging Face networks exported by optimum, with the configuration files that it writes."""

import tempfile

from optimum.exporters.onnx import main_export
from transformers import (
    AutoModelForImageClassification,
    ConvNextConfig,
    ConvNextImageProcessor,
    MobileNetV2Config,
    MobileNetV2ImageProcessor,
    MobileViTConfig,
    MobileViTImageProcessor,
    ResNetConfig,
    SwinConfig,
    ViTConfig,
    ViTImageProcessor,
)

from common import Export, randomise, reference_images, seed_torch, shorten_names

TOOL = "optimum.exporters.onnx.main_export"
LARGE_FILE_BYTES = 100_000
LABELS = ["apple", "bread", "cheese", "dates", "egg"]
LABEL_OPTIONS = {"id2label": dict(enumerate(LABELS)), "label2id": {label: index for index, label in enumerate(LABELS)}}


def huggingface(name, exercises, config, processor, shape=(1, 3, 32, 32)):
    """Describes an export as of a model folder from the hub."""

    def write(folder):
        seed_torch(name)
        model = AutoModelForImageClassification.from_config(config)
        randomise(model, reference_images(shape))
        with tempfile.TemporaryDirectory() as temporary:
            model.save_pretrained(temporary)
            processor.save_pretrained(temporary)
            main_export(temporary, folder, task="image-classification", do_validation=False)
        if (folder / "model.onnx").stat().st_size > LARGE_FILE_BYTES:
            shorten_names(folder / "model.onnx")

    return Export(name, TOOL, exercises, write, list(shape))


def sizes(side):
    return {"size": {"height": side, "width": side}}


EXPORTS = [
    huggingface(
        "huggingface-mobilenetv2",
        "MobileNetV2, padding as in TensorFlow",
        MobileNetV2Config(
            image_size=32,
            depth_multiplier=0.05,
            depth_divisible_by=4,
            min_depth=4,
            expand_ratio=2,
            finegrained_output=False,
            **LABEL_OPTIONS,
        ),
        MobileNetV2ImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}),
    ),
    huggingface(
        "huggingface-vit",
        "ViT",
        ViTConfig(
            image_size=32,
            patch_size=8,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            **LABEL_OPTIONS,
        ),
        ViTImageProcessor(**sizes(32)),
    ),
    huggingface(
        "huggingface-resnet",
        "ResNet",
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **LABEL_OPTIONS),
        ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875),
    ),
    huggingface(
        "huggingface-convnext",
        "ConvNeXT",
        ConvNextConfig(image_size=32, num_stages=3, hidden_sizes=[8, 12, 16], depths=[1, 1, 1], **LABEL_OPTIONS),
        ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875),
    ),
    huggingface(
        "huggingface-mobilevit",
        "MobileViT: BGR input, pixels unfolded to patches and back",
        MobileViTConfig(
            image_size=64,
            hidden_sizes=[4, 4, 8],
            neck_hidden_sizes=[4, 4, 4, 8, 8, 8, 8],
            num_attention_heads=2,
            mlp_ratio=1.0,
            expand_ratio=1.0,
            **LABEL_OPTIONS,
        ),
        MobileViTImageProcessor(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}),
        (1, 3, 64, 64),
    ),
    huggingface(
        "huggingface-swin",
        "Swin: windows shifted by slices and concatenation",
        SwinConfig(
            image_size=32,
            patch_size=4,
            embed_dim=8,
            depths=[2, 1],
            num_heads=[1, 1],
            window_size=4,
            mlp_ratio=1.0,
            **LABEL_OPTIONS,
        ),
        ViTImageProcessor(**sizes(32)),
    ),
]
