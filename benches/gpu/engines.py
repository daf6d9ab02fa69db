# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs PyTorch (eager or compiled) or onnxruntime on a GPU as a worker: engines.py ENGINE PRECISION MODEL

`worker.py` describes the protocol. `load JOB BATCH SIDE` makes a batch of random pixels in the host's memory.
The result of a job is the network's outputs, also in the host's memory. PyTorch normalises the pixels on the
GPU. onnxruntime gets pixels that are normalised on the CPU, because its model expects floats. PyTorch runs
torchvision's MobileNetV2 with random weights, which need the same arithmetic as trained weights.
"""

import sys

import worker

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def load(batch, side):
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (int(batch), int(side), int(side), 3), np.uint8)


def pytorch(is_compiled, precision):
    import torch
    import torchvision

    if not torch.cuda.is_available():
        raise RuntimeError("PyTorch finds no CUDA device")
    mean, std = (torch.tensor(values, device="cuda").view(1, 3, 1, 1) for values in (MEAN, STD))
    dtype = {"f32": torch.float32, "f16": torch.float16}[precision]
    network = torchvision.models.mobilenet_v2(weights=None).eval().to("cuda", dtype)
    network = network.to(memory_format=torch.channels_last)
    if is_compiled:
        network = torch.compile(network, mode="max-autotune")

    def run(images):
        with torch.inference_mode():
            pixels = torch.from_numpy(images).pin_memory().to("cuda", non_blocking=True)
            values = pixels.permute(0, 3, 1, 2).float().div(255).sub(mean).div(std).to(dtype)
            # The copy to the host waits for the GPU.
            return network(values).float().cpu()

    return f"{'torch.compile' if is_compiled else 'PyTorch eager'} {torch.__version__}", load, [run]


def onnxruntime(model):
    import numpy as np
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise RuntimeError("the installed onnxruntime has no CUDA support; install onnxruntime-gpu")
    session = onnxruntime.InferenceSession(model, providers=["CUDAExecutionProvider"])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise RuntimeError("onnxruntime cannot use the GPU")
    name = session.get_inputs()[0].name
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)

    def run(images):
        values = ((images.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
        return session.run(None, {name: np.ascontiguousarray(values)})[0]

    return f"onnxruntime {onnxruntime.__version__}", load, [run]


engine, precision, model = sys.argv[1:]
worker.serve(
    lambda: onnxruntime(model) if engine == "onnxruntime" else pytorch(engine == "torch.compile", precision)
)
