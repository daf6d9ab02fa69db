"""Networks exported by torch, then quantised by onnxruntime or converted to float16."""

import tempfile
from pathlib import Path

import onnx
from onnxconverter_common import float16
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from common import Export, randomise, reference_images, seed_torch
from torch_exports import SHAPE, Classifier, export_legacy


class ReferenceImages(CalibrationDataReader):
    """Calibrates with the reference images."""

    def __init__(self):
        self.images = iter(reference_images(SHAPE).numpy())

    def get_next(self):
        image = next(self.images, None)
        return None if image is None else {"input": image[None]}


def quantise_statically(source, path, quant_format):
    quantize_static(source, path, ReferenceImages(), quant_format=quant_format, per_channel=True)


def keep_float_io(source, path):
    onnx.save(float16.convert_float_to_float16(onnx.load(source), keep_io_types=True), path)


def converted(name, tool, exercises, convert):
    """Describes a network that `convert` makes of torch's export."""

    def write(folder):
        seed_torch(name)
        model = randomise(Classifier(10), reference_images(SHAPE))
        with tempfile.TemporaryDirectory() as temporary:
            exported, prepared = Path(temporary) / "exported.onnx", Path(temporary) / "prepared.onnx"
            export_legacy(model, reference_images(SHAPE)[:1], exported)
            quant_pre_process(exported, prepared)
            convert(prepared, folder / "model.onnx")

    return Export(name, tool, exercises, write, SHAPE)


EXPORTS = [
    converted(
        "onnxruntime-qdq",
        "onnxruntime quantize_static",
        "int8, per channel, QuantizeLinear and DequantizeLinear",
        lambda source, path: quantise_statically(source, path, QuantFormat.QDQ),
    ),
    converted(
        "onnxruntime-qoperator",
        "onnxruntime quantize_static",
        "int8, per channel, QLinearConv",
        lambda source, path: quantise_statically(source, path, QuantFormat.QOperator),
    ),
    converted(
        "onnxruntime-dynamic",
        "onnxruntime quantize_dynamic",
        "ConvInteger, MatMulInteger and DynamicQuantizeLinear",
        quantize_dynamic,
    ),
    converted(
        "float16-keep-io",
        "onnxconverter-common convert_float_to_float16",
        "float16 weights, float32 input and output",
        keep_float_io,
    ),
]
