"""The description of an export, and the seeded weights of torch networks."""

import sysconfig
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import onnx
import torch
from torch import nn

from reference import random_images


@dataclass
class Export:
    """One folder: `write` puts `model.onnx` and the tool's other files into it."""

    name: str
    tool: str
    exercises: str
    write: Callable[[Path], None]
    shape: list[int]
    layout: str = "nchw"


def seed_torch(name):
    """Seeds torch by the name of the network, so that each one can be made alone."""
    torch.manual_seed(zlib.crc32(name.encode()))


def randomise(model, images):
    """Gives every layer random weights, and batch normalisation random statistics that fit the images."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("gamma", "lambda1", "layer_scale", "layer_scale_1", "layer_scale_2", ".ls1", ".ls2")):
                nn.init.uniform_(parameter, 0.5, 1.0)
            elif parameter.dim() >= 2:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 * 1.4)
            elif name.endswith("weight"):
                nn.init.uniform_(parameter, 0.7, 1.4)
            else:
                nn.init.normal_(parameter, std=0.2)
        set_statistics(model, images)
    return model.eval()


def set_statistics(model, images):
    """Sets the running statistics to those of the images, and changes them by up to a fifth."""
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)]
    for layer in layers:
        layer.momentum = 1.0
    model.train()
    model(images)
    for layer in layers:
        layer.running_var *= torch.empty_like(layer.running_var).uniform_(0.8, 1.2)
        layer.running_mean += torch.empty_like(layer.running_mean).normal_(std=0.1)


def reference_images(shape):
    """Returns the reference images as a tensor."""
    return torch.from_numpy(random_images(shape))


def tidy_metadata(path, keeps_metadata):
    """Removes the metadata of the nodes, or only this machine's folders from the stack traces in it.

    The metadata is about two thirds of a small file.
    """
    model = onnx.load(path, load_external_data=False)
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"), str(Path(__file__).parent)]
    for node in model.graph.node:
        if not keeps_metadata:
            del node.metadata_props[:]
        for entry in node.metadata_props:
            for folder in folders:
                entry.value = entry.value.replace(folder + "/", "")
    if not keeps_metadata:
        del model.graph.metadata_props[:]
    onnx.save(model, path)


def shorten_names(path):
    """Numbers the values, and removes the names of the nodes, which are most of a file with a thousand nodes."""
    model = onnx.load(path)
    kept = {value.name for value in model.graph.output}
    outputs = [name for node in model.graph.node for name in node.output if name and name not in kept]
    names = {name: str(index) for index, name in enumerate(outputs)}
    for node in model.graph.node:
        node.name = ""
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    onnx.save(model, path)
