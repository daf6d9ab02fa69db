"""Networks exported by torch's two exporters."""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import VisionTransformer

from common import Export, randomise, reference_images, seed_torch, tidy_metadata

DYNAMO = "torch.onnx.export(dynamo=True)"
LEGACY = "torch.onnx.export(dynamo=False)"
SHAPE = [1, 3, 32, 32]


def conv_block(in_channels, out_channels, size=3, stride=1, groups=1):
    convolution = nn.Conv2d(in_channels, out_channels, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU6())


class InvertedResidual(nn.Module):
    """The block of MobileNetV2: expansion, depthwise convolution, projection."""

    def __init__(self, in_channels, out_channels, stride):
        super().__init__()
        expanded = 3 * in_channels
        self.layers = nn.Sequential(
            conv_block(in_channels, expanded, size=1),
            conv_block(expanded, expanded, stride=stride, groups=expanded),
            nn.Conv2d(expanded, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, x):
        return x + self.layers(x) if self.is_residual else self.layers(x)


class Backbone(nn.Module):
    """A small MobileNetV2 without classifier: images to a feature map with 24 channels."""

    def __init__(self, channels=3):
        super().__init__()
        self.layers = nn.Sequential(
            conv_block(channels, 8, stride=2),
            InvertedResidual(8, 8, stride=1),
            InvertedResidual(8, 12, stride=2),
            InvertedResidual(12, 12, stride=1),
            conv_block(12, 24, size=1),
        )

    def forward(self, x):
        return self.layers(x)


class Classifier(nn.Module):
    """The small MobileNetV2 with an activation after the classifier."""

    def __init__(self, classes, channels=3, head=nn.Identity()):
        super().__init__()
        self.features = Backbone(channels)
        self.classifier = nn.Linear(24, classes)
        self.head = head

    def forward(self, x):
        x = F.adaptive_avg_pool2d(self.features(x), 1).flatten(1)
        return self.head(self.classifier(x))


class AnySizeCnn(nn.Module):
    """A plain CNN for images of any size, which reshapes by the batch size that it reads at run time."""

    def __init__(self, classes):
        super().__init__()
        self.features = nn.Sequential(conv_block(3, 12, stride=2), nn.MaxPool2d(3, 2, 1), conv_block(12, 16))
        self.classifier = nn.Linear(16, classes)

    def forward(self, x):
        x = F.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(x.view(x.size(0), -1))


class PixelClassifier(nn.Module):
    """Casts and normalises uint8 pixels before the classifier."""

    def __init__(self, classes, is_channels_last):
        super().__init__()
        self.model = Classifier(classes)
        self.is_channels_last = is_channels_last
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, pixels):
        if self.is_channels_last:
            pixels = pixels.permute(0, 3, 1, 2)
        return self.model((pixels.float() / 255 - self.mean) / self.std)


class Embedding(nn.Module):
    """Pooled features of length 1."""

    def __init__(self):
        super().__init__()
        self.features = Backbone()

    def forward(self, x):
        return F.normalize(self.features(x).mean((2, 3)), dim=1)


class LogitsAndFeatures(nn.Module):
    """Two outputs: the logits and the pooled features."""

    def __init__(self, classes):
        super().__init__()
        self.features = Backbone()
        self.classifier = nn.Linear(24, classes)

    def forward(self, x):
        features = self.features(x).mean((2, 3))
        return self.classifier(features), features


class EncoderClassifier(nn.Module):
    """Patches through `nn.TransformerEncoder`, sequence first, and the mean of the tokens."""

    def __init__(self, classes, width=16):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.positions = nn.Parameter(torch.zeros(16, 1, width))
        layer = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.0, activation="gelu", norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).permute(2, 0, 1) + self.positions
        return self.classifier(self.encoder(tokens).mean(0))


def vision_transformer():
    return VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=6
    )


def average_pool_ceil():
    """Windows that reach over the edge: 16 pixels become 8 + 1, of which the last window is partial."""
    pool = nn.AvgPool2d(3, 2, ceil_mode=True, count_include_pad=False)
    padded_pool = nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=True)
    flatten = nn.Flatten()
    return nn.Sequential(conv_block(3, 8, stride=2), pool, conv_block(8, 8), padded_pool, flatten, nn.Linear(200, 5))


def export_dynamo(model, inputs, path, keeps_metadata=False, **options):
    torch.onnx.export(model, (inputs,), path, dynamo=True, verbose=False, **options)
    tidy_metadata(path, keeps_metadata)


def export_legacy(model, inputs, path, **options):
    names = {"input_names": ["input"], "output_names": ["output"]}
    torch.onnx.export(model, (inputs,), path, dynamo=False, **(names | options))


def float_export(name, exercises, create, export, tool, shape=SHAPE, **options):
    """Describes the export of a network for float images."""

    def write(folder):
        seed_torch(name)
        model = randomise(create(), reference_images(shape))
        export(model, reference_images(shape)[:1], folder / "model.onnx", **options)

    return Export(name, tool, exercises, write, shape)


def dynamo(name, exercises, create, shape=SHAPE, **options):
    return float_export(name, exercises, create, export_dynamo, DYNAMO, shape, **options)


def legacy(name, exercises, create, shape=SHAPE, **options):
    return float_export(name, exercises, create, export_legacy, LEGACY, shape, **options)


def half(name, exercises, export, tool):
    """Describes the export of a network whose weights and input are float16."""

    def write(folder):
        seed_torch(name)
        model = randomise(Classifier(7), reference_images(SHAPE)).half()
        export(model, reference_images(SHAPE)[:1].half(), folder / "model.onnx")

    return Export(name, tool, exercises, write, SHAPE)


def pixels(name, exercises, is_channels_last, export, tool):
    """Describes the export of a network for uint8 images."""

    def write(folder):
        seed_torch(name)
        network = PixelClassifier(5, is_channels_last)
        randomise(network.model, reference_images(SHAPE))
        shape = (1, 32, 32, 3) if is_channels_last else (1, 3, 32, 32)
        export(network.eval(), torch.zeros(shape, dtype=torch.uint8), folder / "model.onnx")

    return Export(name, tool, exercises, write, SHAPE, "nhwc" if is_channels_last else "nchw")


BATCH = {0: torch.export.Dim("batch")}
EXPORTS = [
    dynamo(
        "torch-dynamo",
        "static batch 1, weights in model.onnx.data, metadata of the nodes",
        lambda: Classifier(10),
        keeps_metadata=True,
    ),
    dynamo(
        "torch-dynamo-batch",
        "dynamic batch, weights inside model.onnx",
        lambda: Classifier(10),
        dynamic_shapes=(BATCH,),
        external_data=False,
    ),
    legacy(
        "torch-legacy-any-size",
        "dynamic batch, height and width; reshape by Shape, Gather and Concat",
        lambda: AnySizeCnn(10),
        dynamic_axes={"input": {0: "batch", 2: "height", 3: "width"}, "output": {0: "batch"}},
    ),
    legacy("torch-legacy-vit", "torchvision's VisionTransformer, static batch 1", vision_transformer),
    dynamo("torch-dynamo-vit", "torchvision's VisionTransformer, static batch 1", vision_transformer),
    legacy("torch-legacy-encoder", "nn.MultiheadAttention, sequence first", lambda: EncoderClassifier(6)),
    dynamo("torch-dynamo-encoder", "nn.MultiheadAttention, sequence first", lambda: EncoderClassifier(6)),
    half("torch-dynamo-half", "float16 weights, input and output", export_dynamo, DYNAMO),
    half("torch-legacy-half", "float16 weights, input and output", export_legacy, LEGACY),
    pixels("torch-dynamo-uint8-nchw", "uint8 input, cast and normalisation", False, export_dynamo, DYNAMO),
    pixels("torch-legacy-uint8-nchw", "uint8 input, cast and normalisation", False, export_legacy, LEGACY),
    pixels("torch-dynamo-uint8-nhwc", "uint8 input, transpose, cast, normalisation", True, export_dynamo, DYNAMO),
    pixels("torch-legacy-uint8-nhwc", "uint8 input, transpose, cast, normalisation", True, export_legacy, LEGACY),
    dynamo("torch-dynamo-softmax", "softmax in the graph", lambda: Classifier(5, head=nn.Softmax(dim=1))),
    legacy("torch-legacy-softmax", "softmax in the graph", lambda: Classifier(5, head=nn.Softmax(dim=1))),
    dynamo("torch-dynamo-log-softmax", "log-softmax in the graph", lambda: Classifier(5, head=nn.LogSoftmax(dim=1))),
    dynamo("torch-dynamo-sigmoid", "one output with sigmoid", lambda: Classifier(1, head=nn.Sigmoid())),
    dynamo("torch-dynamo-one-logit", "one output, a logit", lambda: Classifier(1)),
    dynamo("torch-dynamo-multi-label", "several outputs with sigmoid", lambda: Classifier(6, head=nn.Sigmoid())),
    dynamo("torch-dynamo-embedding", "pooled features of length 1, no classes", Embedding),
    legacy("torch-legacy-embedding", "pooled features of length 1, no classes", Embedding),
    dynamo(
        "torch-dynamo-two-outputs",
        "two outputs: logits and 24 features; the reference is for the logits",
        lambda: LogitsAndFeatures(5),
        output_names=["logits", "features"],
    ),
    dynamo("torch-dynamo-2-classes", "2 classes", lambda: Classifier(2)),
    dynamo("torch-dynamo-3-classes", "3 classes", lambda: Classifier(3)),
    dynamo("torch-dynamo-4-classes", "4 classes", lambda: Classifier(4)),
    dynamo("torch-dynamo-grey", "input with 1 channel", lambda: Classifier(10, channels=1), [1, 1, 28, 28]),
    dynamo("torch-dynamo-wide", "input that is not square", lambda: Classifier(5), [1, 3, 32, 48]),
    dynamo("torch-dynamo-average-pool-ceil", "AveragePool with ceil_mode", average_pool_ceil),
    legacy("torch-legacy-average-pool-ceil", "AveragePool with ceil_mode", average_pool_ceil, opset_version=18),
]
