"""Keras and TFLite networks converted by tf2onnx."""

import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from common import Export
from reference import random_images

TOOL = "tf2onnx from Keras"
TFLITE_TOOL = "tf2onnx --tflite"
SHAPE = [1, 3, 32, 32]
IMAGE_SHAPE = (32, 32, 3)


def conv_block(x, channels, strides=1, depthwise=False):
    if depthwise:
        x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
        x = layers.Conv2D(channels, 1, padding="same", use_bias=False)(x)
    else:
        x = layers.Conv2D(channels, 3, strides=strides, padding="same", use_bias=False)(x)
    return layers.ReLU(6.0)(layers.BatchNormalization()(x))


def network(classes, activation=None, image_shape=IMAGE_SHAPE, normalises=False, depthwise=False):
    """Builds a small CNN."""
    image = x = keras.Input(image_shape, name="image")
    if normalises:
        x = layers.Rescaling(0.5, offset=0.25)(x)
        x = layers.Normalization(mean=[0.2, 0.25, 0.3], variance=[1.0, 1.5, 2.0])(x)
    x = conv_block(x, 8, strides=2)
    x = conv_block(x, 12, strides=2, depthwise=depthwise)
    x = conv_block(x, 16, depthwise=depthwise)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(classes, activation=activation, name="classes")(x))


def batched_images():
    return random_images(SHAPE).transpose(0, 2, 3, 1)


def randomise(model, seed):
    """Gives batch normalisation random parameters, and statistics that fit the images."""
    generator = np.random.default_rng(seed)
    normalisations = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    for layer in normalisations:
        before = keras.Model(model.input, layer.input)(batched_images())
        mean, variance = np.mean(before, (0, 1, 2)), np.var(before, (0, 1, 2))
        count = len(mean)
        scale, shift = generator.uniform(0.7, 1.4, count), generator.normal(0, 0.2, count)
        layer.set_weights([scale, shift, mean, variance * generator.uniform(0.8, 1.2, count)])


def create(name, *arguments, **options):
    seed = zlib.crc32(name.encode())
    keras.utils.set_random_seed(seed)
    keras.backend.clear_session()
    model = network(*arguments, **options)
    randomise(model, seed)
    return model


def run_tf2onnx(*arguments):
    subprocess.run([sys.executable, "-m", "tf2onnx.convert", *map(str, arguments)], check=True, capture_output=True)


def from_keras(name, exercises, *arguments, **options):
    """Describes a network that tf2onnx converts from a SavedModel."""

    def write(folder):
        model = create(name, *arguments, **options)
        with tempfile.TemporaryDirectory() as temporary:
            model.export(temporary, verbose=False)
            run_tf2onnx("--saved-model", temporary, "--output", folder / "model.onnx", "--opset", 18)

    return Export(name, TOOL, exercises, write, SHAPE, "nhwc")


def from_tflite(name, exercises, is_quantised):
    """Describes a network that tf2onnx converts from a TFLite file."""

    def write(folder):
        converter = tf.lite.TFLiteConverter.from_keras_model(create(name, 5, activation="softmax", depthwise=True))
        if is_quantised:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image[None]] for image in batched_images())
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.uint8
        with tempfile.TemporaryDirectory() as temporary:
            tflite_path = Path(temporary) / "model.tflite"
            tflite_path.write_bytes(converter.convert())
            run_tf2onnx("--tflite", tflite_path, "--output", folder / "model.onnx", "--opset", 18)

    return Export(name, TFLITE_TOOL, exercises, write, SHAPE, "nhwc")


EXPORTS = [
    from_keras("keras-batch", "dynamic batch, NHWC, logits", 5),
    from_keras("keras-any-size", "dynamic batch, height and width", 5, image_shape=(None, None, 3)),
    from_keras("keras-preprocessing", "Rescaling and Normalization in the graph", 5, normalises=True),
    from_keras("keras-softmax", "softmax in the graph", 5, activation="softmax"),
    from_keras("keras-sigmoid", "one output with sigmoid", 1, activation="sigmoid"),
    from_keras("keras-depthwise", "depthwise-separable convolutions with SAME padding", 5, depthwise=True),
    from_tflite("tflite-float", "float TFLite file, softmax", False),
    from_tflite("tflite-uint8", "quantised TFLite file, uint8 input and output", True),
]
