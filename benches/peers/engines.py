"""Runs onnxruntime or OpenVINO as a worker: engines.py onnxruntime|openvino MODEL THREADS INSTANCES

`worker.py` describes the protocol. Each instance runs the model with `THREADS` threads. A job is the input of
the network (float32, NCHW, one image). The result of a job is the logits. If the environment variable
`PEERS_PACKAGES` names a folder, packages in this folder are preferred to the installed packages.
"""

import os
import sys

sys.path[:0] = filter(None, [os.environ.get("PEERS_PACKAGES")])

import numpy as np  # noqa: E402  must follow the change of sys.path

import worker  # noqa: E402


def load_image(file, side):
    return np.fromfile(file, np.float32).reshape(1, 3, int(side), int(side))


def onnxruntime(model, threads, instances):
    """Runs onnxruntime. All instances share one session, whose runs use `threads` threads each.

    With one thread per run, onnxruntime computes a run on the thread that calls it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def load(file, side):
        return {name: load_image(file, side)}

    def run(inputs):
        return session.run(None, inputs)[0]

    return f"onnxruntime {onnxruntime.__version__}", load, [run] * instances


def openvino(model, threads, instances):
    """Runs OpenVINO. All instances share one compiled model, with a stream and a request for each instance.

    float32 is requested explicitly, because OpenVINO uses bfloat16 by default if the CPU supports it.
    """
    import openvino
    from openvino import properties
    from openvino.properties import hint

    mode = hint.PerformanceMode.THROUGHPUT if instances > 1 else hint.PerformanceMode.LATENCY
    settings = {
        hint.performance_mode: mode,
        hint.inference_precision: openvino.Type.f32,
        properties.inference_num_threads: threads * instances,
        properties.num_streams: instances,
    }
    core = openvino.Core()
    network = core.read_model(model)
    requests = []

    def load(file, side):
        image = load_image(file, side)
        network.reshape(list(image.shape))
        compiled = core.compile_model(network, "CPU", settings)
        requests[:] = [compiled.create_infer_request() for _ in range(instances)]
        for request in requests:
            request.set_input_tensor(openvino.Tensor(image))

    runs = [lambda _, instance=instance: requests[instance].infer()[0] for instance in range(instances)]
    return f"OpenVINO {openvino.__version__.split('-')[0]}", load, runs


if __name__ == "__main__":
    engine, model, *counts = sys.argv[1:]
    start = {"onnxruntime": onnxruntime, "openvino": openvino}[engine]
    worker.serve(lambda: start(model, *map(int, counts)))
