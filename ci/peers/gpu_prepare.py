"""Compiles, all at once, what the workloads need: PyTorch's graphs into Inductor's cache, centime's kernels into its own.

A model that PyTorch compiles layer by layer has one layer here: the rest would compile the same, and all fit beside one another.
Nothing is measured. What fails here is only cold when its turn comes.
"""

import json
import os
import subprocess
import sys
import time

from gpu_run import arguments, attempt, centime, last_line, peer_command
from gpu_workloads import WORKLOADS, shallow

# Of all processes together, about a core each on 16.
THREADS = "3"


def compilations(a):
    """A process a workload."""
    environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": THREADS, "OMP_NUM_THREADS": THREADS}
    running = {}
    for workload in WORKLOADS:
        of = workload if a.whole or workload.whole else shallow(workload)
        log = open(a.out / f"{workload.name}.prepare.log", "w")
        command = peer_command(of, a, "--prepare")
        running[workload.name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        log.close()
    return running


def kernels(a, faults):
    """centime's, of every workload in turn; who has asked for one has it in the cache."""
    seconds = {}
    for workload in WORKLOADS:
        began = time.monotonic()
        run = lambda: centime(shallow(workload), a, a.out / "prepare", False, 0.2)
        if attempt(f"centime, {workload.name}", run, faults):
            seconds[workload.name] = round(time.monotonic() - began, 1)
    return seconds


def main():
    a = arguments()
    faults, began, ready = [], time.monotonic(), {}
    running = compilations(a)
    ours = kernels(a, faults)
    for name, process in running.items():
        try:
            code = process.wait(a.left())
            ready[name] = round(time.monotonic() - began, 1)
            if code != 0:
                faults.append(f"PyTorch, {name}: ended with {code}: {last_line(a.out / f'{name}.prepare.log')}")
        except subprocess.TimeoutExpired:
            process.kill()
            faults.append(f"PyTorch, {name}: not compiled when time was up")
    print(json.dumps({"centime_seconds": ours, "pytorch_ready_after_seconds": ready, "faults": faults}, indent=1))
    return 3 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
