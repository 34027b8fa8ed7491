"""One contestant in a process of its own: its first step at once, then as many steps as each line of input asks for.

    python benchmarks/peers/worker.py '{"module": "jax_jit", "folder": "...", "batch": 8, "seq": 256, "dtype": "float32", "threads": 2}'

It answers with a line of JSON each time, and to the end of its input with what it has used.
"""

import importlib
import json
import os
import sys
import time


def peak_bytes() -> int:
    """The most memory that was resident; unlike ru_maxrss, it begins with this program and not with the one that started it."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def versions() -> dict[str, str]:
    found = {name: sys.modules[name] for name in ("torch", "transformers", "jax", "meshwright") if name in sys.modules}
    return {name: getattr(module, "__version__", "?") for name, module in found.items()}


def main() -> None:
    spec = json.loads(sys.argv[1])
    # Answers keep the true standard output; what libraries print goes to the log.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**fields: object) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    # As many processors as threads: JAX takes all that it may use.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: spec["threads"]])
    sys.path[0] = os.path.dirname(sys.path[0])
    step = importlib.import_module(f"peers.contestants.{spec['module']}").step_of(spec)
    value = step()
    answer(value=value, at=time.monotonic())
    for line in sys.stdin:
        seconds, values = [], []
        for _ in range(int(line)):
            start = time.perf_counter()
            values.append(step())
            seconds.append(time.perf_counter() - start)
        answer(seconds=seconds, values=values)
    answer(peak_bytes=peak_bytes(), versions=versions())


if __name__ == "__main__":
    main()
