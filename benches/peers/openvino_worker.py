"""OpenVINO as a worker: see worker.py.

One compiled model with a stream an instance, and a request of its own for each. float32 is asked for by
name: on CPUs with bfloat16 OpenVINO would take that by itself.
"""

import openvino
from openvino import properties
from openvino.properties import hint

import worker


def main():
    arguments = worker.arguments()
    several = arguments.instances > 1
    core = openvino.Core()
    model = core.read_model(arguments.model)
    model.reshape(list(arguments.image.shape))
    compiled = core.compile_model(
        model,
        "CPU",
        {
            hint.performance_mode: hint.PerformanceMode.THROUGHPUT if several else hint.PerformanceMode.LATENCY,
            hint.inference_precision: openvino.Type.f32,
            properties.inference_num_threads: arguments.threads * arguments.instances,
            properties.num_streams: arguments.instances,
        },
    )
    requests = [compiled.create_infer_request() for _ in range(arguments.instances)]
    for request in requests:
        request.set_input_tensor(openvino.Tensor(arguments.image))

    def logits():
        requests[0].infer()
        return requests[0].get_output_tensor().data

    version = openvino.__version__.split("-")[0]
    worker.serve(version, logits, [request.infer for request in requests])


if __name__ == "__main__":
    main()
