"""The worker's side of the line protocol between a benchmark and the processes that do the measured work.

A worker consists of one or more instances, which run a job at the same time. The worker prints `ready NAME`
when it has started, and answers each line on standard input with one line:

    load JOB ARGUMENT…   loads a job and keeps it in memory; answers `done`
    run JOB TIMES        runs the job TIMES times on every instance, with all instances at the same time;
                         answers the CPU time of the process (user and system), the wall-clock time from the
                         start of the first repetition to the end of the last, and the duration of each
                         repetition, in nanoseconds
    result JOB FILE      runs the job once and writes its result to FILE; answers `done`

The worker exits after it has answered `error REASON`, and when its standard input is closed.
"""

import sys
from pathlib import Path
from threading import Barrier, Thread
from time import perf_counter_ns, process_time_ns


def repeat(run, job, times, barrier, reports):
    """Runs a job `times` times on an instance. Appends the start, the end and the durations to `reports`."""
    barrier.wait()
    durations = []
    begin = perf_counter_ns()
    for _ in range(times):
        start = perf_counter_ns()
        run(job)
        durations.append(perf_counter_ns() - start)
    reports.append((begin, perf_counter_ns(), durations))


def run_on_all(instances, job, times):
    """Returns the CPU time, the wall-clock time and the duration of each repetition, all in nanoseconds."""
    barrier, reports = Barrier(len(instances)), []
    cpu = process_time_ns()
    threads = [Thread(target=repeat, args=(run, job, times, barrier, reports)) for run in instances[1:]]
    for thread in threads:
        thread.start()
    repeat(instances[0], job, times, barrier, reports)
    for thread in threads:
        thread.join()
    cpu = process_time_ns() - cpu
    wall = max(end for _, end, _ in reports) - min(begin for begin, _, _ in reports)
    return [cpu, wall, *(duration for _, _, durations in reports for duration in durations)]


def answer_commands(load, instances):
    jobs = {}
    for line in sys.stdin:
        match line.split():
            case ["load", job, *arguments]:
                jobs[job] = load(*arguments)
                print("done", flush=True)
            case ["run", job, times]:
                print(*run_on_all(instances, jobs[job], int(times)), flush=True)
            case ["result", job, file]:
                Path(file).write_bytes(instances[0](jobs[job]))
                print("done", flush=True)
            case _:
                raise ValueError(f"not a command: {line!r}")


def serve(start):
    """Answers the commands on standard input until standard input is closed.

    `start()` returns the worker's name, the function `load` and the list of instances. `load(*arguments)`
    returns a job. An instance is a function that runs a job once and returns its result.
    """
    try:
        name, load, instances = start()
        print("ready", name, flush=True)
        answer_commands(load, instances)
    except ImportError as error:
        sys.exit(print("error not present:", error, flush=True))
    except Exception as error:
        print("error failed:", *(str(error).strip().splitlines() or [repr(error)])[:1], flush=True)
        raise
