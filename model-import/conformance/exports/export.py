"""Makes the exported networks anew: `python export.py [NAME…]`. Without names, it makes all of them."""

import shutil
import sys
from pathlib import Path

import onnx

import huggingface_exports
import keras_exports
import onnxruntime_exports
import reference
import timm_exports
import torch_exports

ROOT = Path(__file__).parent
MODULES = [torch_exports, onnxruntime_exports, timm_exports, keras_exports, huggingface_exports]
EXPORTS = [export for module in MODULES for export in module.EXPORTS]


def make(export):
    """Writes the model and its reference outputs to a new folder."""
    folder = ROOT / export.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    export.write(folder)
    outputs = reference.write_outputs(folder, export.shape, export.layout)
    size = sum(file.stat().st_size for file in folder.rglob("*"))
    print(f"{export.name}: {size} bytes, spread {reference.spread(outputs):.3f}")


def describe_dimension(dimension):
    """Returns the size of a dimension or, if it is dynamic, its name."""
    return dimension.dim_param or "?" if not dimension.HasField("dim_value") else dimension.dim_value


def describe_type(value):
    """Returns the element type and the shape of an input or output."""
    tensor = value.type.tensor_type
    dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    return dtype, [describe_dimension(dimension) for dimension in tensor.shape.dim]


def toml(value):
    """Returns a string, a number or a list as TOML."""
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def index_entry(export):
    """Returns the section of `index.toml` about a network."""
    folder = ROOT / export.name
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    weights = {initializer.name for initializer in model.graph.initializer}
    [model_input] = [value for value in model.graph.input if value.name not in weights]
    dtype, declared_shape = describe_type(model_input)
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    fields = {
        "name": export.name,
        "tool": export.tool,
        "opset": opsets[""],
        "input": model_input.name,
        "layout": export.layout,
        "dtype": dtype,
        "declared_shape": declared_shape,
        "image_shape": export.shape if export.layout == "nchw" else [export.shape[index] for index in (0, 2, 3, 1)],
        "output": model.graph.output[0].name,
        "classes": (folder / "outputs.f32").stat().st_size // 4 // reference.IMAGE_COUNT,
        "exercises": export.exercises,
    }
    return "\n[[network]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in fields.items())


def write_index():
    """Writes `index.toml` about every network whose folder exists."""
    existing = [export for export in EXPORTS if (ROOT / export.name).exists()]
    header = "# Written by export.py. README.md describes the fields.\n"
    (ROOT / "index.toml").write_text(header + "".join(map(index_entry, existing)))


def main():
    names = sys.argv[1:]
    unknown = set(names) - {export.name for export in EXPORTS}
    if unknown:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}")
    for export in EXPORTS:
        if not names or export.name in names:
            make(export)
    write_index()


if __name__ == "__main__":
    main()
