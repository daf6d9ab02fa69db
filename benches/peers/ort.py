"""onnxruntime as a worker: see worker.py.

One session however many instances there are: a session may be run from several threads, and with one
thread within a run each of them computes for itself.
"""

import onnxruntime

import worker


def main():
    arguments = worker.arguments()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(arguments.model, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: arguments.image}

    def run():
        return session.run(None, inputs)

    worker.serve(onnxruntime.__version__, lambda: run()[0], [run] * arguments.instances)


if __name__ == "__main__":
    main()
