"""The lines that an engine's worker and the bench say to each other.

Started with a model, an input (float32, in C order, one image) and how to run:

    WORKER.py MODEL.onnx INPUT.f32 SIDE THREADS INSTANCES

`INSTANCES` threads run the model side by side, each with `THREADS` threads within a run. Lines in:

    logits      the outputs for the input
    run N       every instance runs N times

and out: `ready VERSION` once, when the model is loaded; the outputs, separated by spaces; the time from
the first start to the last end, then each run's own, in nanoseconds. The end of the input ends it.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier, Thread
from time import perf_counter_ns

import numpy as np


@dataclass
class Arguments:
    model: str
    image: np.ndarray
    threads: int
    instances: int


def arguments():
    model, image, side, threads, instances = sys.argv[1:]
    side = int(side)
    image = np.fromfile(Path(image), np.float32).reshape(1, 3, side, side)
    return Arguments(model, image, int(threads), int(instances))


def timed(run, times):
    """Each run's duration, in nanoseconds."""
    durations = []
    for _ in range(times):
        start = perf_counter_ns()
        run()
        durations.append(perf_counter_ns() - start)
    return durations


def side_by_side(runs, times):
    """All of `runs` at once, each in a thread of its own: wall time, and each run's own."""
    if len(runs) == 1:
        start = perf_counter_ns()
        durations = timed(runs[0], times)
        return perf_counter_ns() - start, durations
    barrier = Barrier(len(runs))
    spans, durations = [], []

    def body(run):
        barrier.wait()
        start = perf_counter_ns()
        own = timed(run, times)
        spans.append((start, perf_counter_ns()))
        durations.extend(own)

    threads = [Thread(target=body, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(end for _, end in spans) - min(start for start, _ in spans), durations


def serve(version, logits, runs):
    """Answers lines until there are no more. `logits` gives the outputs, each of `runs` runs once."""
    print("ready", version, flush=True)
    for line in sys.stdin:
        match line.split():
            case ["logits"]:
                # The shortest text that reads back as the same float32.
                print(*(str(value) for value in np.ravel(logits())), flush=True)
            case ["run", times]:
                wall, durations = side_by_side(runs, int(times))
                print(wall, *durations, flush=True)
            case _:
                sys.exit(f"not a command: {line!r}")
