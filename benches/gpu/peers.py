# SPDX-License-Identifier: GPL-3.0-or-later
"""PyTorch (eager and compiled) and onnxruntime on a GPU, measured as main.rs measures: a line of JSON each.

Usage: peers.py MODEL.onnx SECONDS MAX_BATCH

Bytes of pixels begin in the host's memory, are normalised on the GPU by PyTorch and on the CPU by
onnxruntime (whose model takes floats), and all outputs end in the host's memory. PyTorch runs
torchvision's MobileNetV2 without its weights: the same arithmetic, other numbers.
"""

import json
import statistics
import sys
import time


def say(**values):
    print(json.dumps(values), flush=True)


try:
    import numpy as np
except ImportError as absent:
    for peer in ["onnxruntime", "PyTorch eager", "torch.compile"]:
        say(engine=peer, absent=f"not present: {absent}")
    sys.exit()

ROUNDS = 5
SIDE = 224
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def pixels(batch):
    return np.random.default_rng(0).integers(0, 256, (batch, SIDE, SIDE, 3), np.uint8)


def measure(engine, precision, forward, seconds, max_batch):
    """`forward` takes pixels and comes back when the outputs are in the host's memory."""
    try:
        measure_batches(engine, precision, forward, seconds, max_batch)
    # Whatever a peer stumbles over, the others are still measured.
    except Exception as error:
        reason = str(error).strip().splitlines() or [repr(error)]
        say(engine=engine, precision=precision, absent=f"failed: {reason[0]}")


def measure_batches(engine, precision, forward, seconds, max_batch):
    batch = 1
    while batch <= max_batch:
        images = pixels(batch)
        for _ in range(5):
            forward(images)
        since, rounds = time.time(), []
        for _ in range(ROUNDS):
            begin, runs = time.perf_counter(), 0
            while time.perf_counter() - begin < seconds / ROUNDS or runs == 0:
                forward(images)
                runs += 1
            rounds.append((time.perf_counter() - begin) / runs)
        latency = statistics.median(rounds)
        say(
            engine=engine,
            precision=precision,
            batch=batch,
            latency_ms=latency * 1e3,
            images_per_second=batch / latency,
            throughput_from=since,
            throughput_to=time.time(),
        )
        batch *= 2


def torch_peers(seconds, max_batch):
    names = ["PyTorch eager", "torch.compile"]
    try:
        import torch
        import torchvision
    except ImportError as error:
        for name in names:
            say(engine=name, absent=f"not present: {error}")
        return
    if not torch.cuda.is_available():
        for name in names:
            say(engine=name, absent="PyTorch sees no CUDA device")
        return
    for name in names:
        say(engine=name, version=torch.__version__)
    mean = torch.tensor(MEAN, device="cuda").view(1, 3, 1, 1)
    std = torch.tensor(STD, device="cuda").view(1, 3, 1, 1)
    for precision, dtype in (("f32", torch.float32), ("f16", torch.float16)):
        model = torchvision.models.mobilenet_v2(weights=None).eval().to("cuda", dtype)
        model = model.to(memory_format=torch.channels_last)
        for name, network in zip(names, [model, torch.compile(model, mode="max-autotune")]):

            def forward(images):
                with torch.inference_mode():
                    bytes_ = torch.from_numpy(images).pin_memory().to("cuda", non_blocking=True)
                    values = bytes_.permute(0, 3, 1, 2).float().div(255).sub(mean).div(std).to(dtype)
                    # The copy back waits for the device.
                    return network(values).float().cpu()

            measure(name, precision, forward, seconds, max_batch)


def onnxruntime_peer(model, seconds, max_batch):
    name = "onnxruntime"
    try:
        import onnxruntime
    except ImportError as error:
        return say(engine=name, absent=f"not present: {error}")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return say(engine=name, absent="onnxruntime is not onnxruntime-gpu")
    session = onnxruntime.InferenceSession(model, providers=["CUDAExecutionProvider"])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        return say(engine=name, absent="onnxruntime cannot use the GPU")
    of_input = session.get_inputs()[0].name

    def forward(images):
        values = ((images.astype(np.float32) / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
        return session.run(None, {of_input: np.ascontiguousarray(values)})

    say(engine=name, version=onnxruntime.__version__)
    measure(name, "f32", forward, seconds, max_batch)


def main():
    model, seconds, max_batch = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    onnxruntime_peer(model, seconds, max_batch)
    torch_peers(seconds, max_batch)


main()
