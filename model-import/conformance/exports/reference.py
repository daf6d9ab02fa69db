"""Generates the reference images and runs onnxruntime on them."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

SEED = 99
IMAGE_COUNT = 5
NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}


def random_units(count):
    """Returns `count` numbers in 0..1, the same ones as graphs/random.rs (splitmix64) for SEED."""
    steps = np.arange(1, count + 1, dtype=np.uint64)
    mixed = np.uint64(SEED) + steps * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(48)).astype(np.float32) / np.float32(65536)


def random_images(shape, dtype=np.float32):
    """Returns five images `[5, channels, height, width]` for an input `[1, channels, height, width]`."""
    units = random_units(IMAGE_COUNT * int(np.prod(shape)))
    if dtype == np.uint8:
        values = units * np.float32(256)
    else:
        values = np.float32(-2) + units * np.float32(4.5)
    return values.astype(dtype).reshape(IMAGE_COUNT, *shape[1:])


def open_session(path):
    """Loads a model without graph optimisations, on one thread."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_images(path, shape, layout):
    """Returns the first output for each image `[5, classes]`. The images are run one at a time."""
    session = open_session(path)
    model_input = session.get_inputs()[0]
    images = random_images(shape, NUMPY_TYPES[model_input.type])
    if layout == "nhwc":
        images = images.transpose(0, 2, 3, 1)
    feeds = [{model_input.name: np.ascontiguousarray(image[None])} for image in images]
    first_output = session.get_outputs()[0].name
    outputs = [session.run([first_output], feed)[0].reshape(-1) for feed in feeds]
    scale, zero_point = read_output_scale(path)
    return ((np.stack(outputs).astype("<f4") - zero_point) * scale).astype("<f4")


def read_output_scale(path):
    """Returns the scale and the zero point of a quantised first output."""
    graph = onnx.load(path, load_external_data=False).graph
    [last] = [node for node in graph.node if graph.output[0].name in node.output]
    if last.op_type != "QuantizeLinear":
        return 1, 0
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return tuple(np.float32(constants[name]) for name in last.input[1:3])


def spread(outputs):
    """Returns the largest standard deviation of an output over the images, relative to the largest output."""
    return float(outputs.std(axis=0).max() / np.abs(outputs).max())


def write_outputs(folder, shape, layout):
    """Writes the outputs for the reference images to `outputs.f32`, and checks that images differ."""
    outputs = run_images(folder / "model.onnx", shape, layout)
    if not np.isfinite(outputs).all() or spread(outputs) < 0.01:
        raise ValueError(f"{folder.name}: outputs are not finite or hardly differ: {outputs}")
    Path(folder / "outputs.f32").write_bytes(outputs.tobytes())
    return outputs
