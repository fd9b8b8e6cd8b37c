"""What the scripts beside it share: the arguments of ci/gpu, a run of centime, a PyTorch peer that is told when to measure."""

import argparse
import json
import os
import pathlib
import queue
import subprocess
import threading
import time

from gpu_workloads import peer_words, scenario

FAULTS = (RuntimeError, subprocess.TimeoutExpired, ValueError, KeyError, IndexError, OSError)


def arguments(*more):
    parser = argparse.ArgumentParser()
    parser.add_argument("--centime", required=True)
    parser.add_argument("--python", required=True, help="an interpreter that has PyTorch")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--whole", action="store_true", help="PyTorch compiles models as a whole")
    parser.add_argument("--seconds", type=float, default=2, help="seconds of a round")
    for words, settings in more:
        parser.add_argument(words, **settings)
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    # Three seconds to write in.
    a.end = time.monotonic() + float(os.environ.get("CENTIME_GPU_SECONDS", "200")) - 3
    a.left = lambda: max(1.0, a.end - time.monotonic())
    return a


def attempt(what, run, faults):
    """What it returns, or None and why among the faults."""
    try:
        return run()
    except FAULTS as fault:
        faults.append(f"{what}: {fault}")
        return None


def centime(workload, a, folder, probe, seconds=None):
    """One trial in a process of its own, as its users run it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "s.yaml"
    path.write_text(scenario(workload, seconds or a.seconds))
    command = [a.centime, "run", str(path), "--fresh", "--quiet", "--format", "json", "--out", str(folder / "run")]
    command += [] if probe else ["--no-probe"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=a.left())
    if not done.stdout.startswith("{"):
        raise RuntimeError(f"ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    row = json.loads(done.stdout)["rows"][0]
    if row["status"] != "ok":
        raise RuntimeError(f"{row['status']}: {row['reason']}")
    keys = ["tokens_per_second", "mfu", "mbu", "peak_gpu_memory_bytes", "gpu_throttled_share", "gpu_sm_mhz"]
    return {k: row.get(k) for k in keys}


def script(name):
    return str(pathlib.Path(__file__).with_name(name))


def peer_command(workload, a, *more):
    whole = ["--whole"] if a.whole or workload.whole else []
    return [a.python, script("torch_gpu_peer.py"), *peer_words(workload, a.seconds), *whole, *more]


def last_line(log):
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "no word of why"


class Peer:
    """A process whose lines are read by a thread, so that waiting for one can end. What it complains of goes to the file `log`."""

    def __init__(self, command, log):
        self.log = log
        with open(log, "w") as file:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def answer(self, seconds):
        """The next line that is JSON; compilers print others."""
        end = time.monotonic() + seconds
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise RuntimeError(f"no answer in {seconds:.0f} s") from None
            if line is None:
                # For whoever asks again.
                self.lines.put(None)
                raise RuntimeError(f"ended with {self.process.wait()}: {last_line(self.log)}")
            if line.startswith("{"):
                return json.loads(line)

    def measure(self, seconds):
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        except OSError:
            pass
        return self.answer(seconds)

    def end(self):
        self.process.kill()
        self.process.wait()
