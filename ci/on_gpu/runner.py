"""Runs steps one after another, each in a group of processes of its own that ends with it, within a time of its own and the part's."""

import ctypes
import os
import signal
import subprocess
import time

from . import steps
from .exit_codes import meaning

# Between asking a step to end and ending it: a process that hangs in the driver may not hear the first.
GRACE = 5
# Kept for the report, and for one step that has to be ended.
RESERVE = 8 + GRACE
# Seconds between two writings of what a running step has left so far.
BETWEEN = 10


class Stopped(Exception):
    """A signal has come."""


class Runner:
    def __init__(self, results, here, end, resume, dry):
        self.results, self.here, self.end, self.resume, self.dry = results, here, end, resume, dry

    def left(self):
        return int(self.end - RESERVE - time.monotonic())

    def run(self, part, some):
        for step in some:
            self.one(part, step)

    def one(self, part, step):
        known = self.results.row(part, step.name)
        if self.resume and known and known["exit_code"] == "0":
            return print(f"{step.name}: ended well before", flush=True)
        command, limit = steps.written(step.command), min(step.limit, max(self.left(), 0))
        if self.dry:
            print(f"{step.name} (at most {step.limit} s): {command or step.lacks}")
            return self.results.put(part, step.name, step.limit, "-", command)
        if step.command is None or limit < min(step.least, step.limit):
            return self.not_run(part, step, step.lacks or "no time was left")
        self.results.put(part, step.name, limit, "running", command)
        self.results.keep()
        self.attempt(part, step, limit, command)

    def not_run(self, part, step, why):
        self.results.log(part, step.name).write_text(why + "\n")
        self.results.put(part, step.name, step.limit, "skipped", steps.written(step.command))
        self.results.keep()
        print(f"{step.name}: {why}", flush=True)

    def attempt(self, part, step, limit, command):
        start, code = time.monotonic(), "stopped"
        began = self.results.row(part, step.name)["began_utc"]
        try:
            with open(self.results.log(part, step.name), "wb") as log:
                code = self.process(step, limit, log)
        finally:
            took = time.monotonic() - start
            self.results.put(part, step.name, limit, code, command, took, began)
            self.results.keep()
        print(f"{step.name}: {meaning(code) or 'ok'} after {took:.0f} s", flush=True)

    def process(self, step, limit, log):
        """The exit code; 124 where time was up, 127 where there is no such program."""
        environment = self.here.bare if step.environment is None else {**self.here.environment, **step.environment}
        # What a script plans its own time by.
        environment = {**environment, "CENTIME_GPU_SECONDS": str(limit)}
        try:
            process = subprocess.Popen(
                step.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                start_new_session=True, preexec_fn=end_with_parent,
            )  # fmt: skip
        except OSError as fault:
            log.write(f"{fault}\n".encode())
            return 127
        try:
            return self.wait(process, time.monotonic() + limit)
        finally:
            end(process)

    def wait(self, process, until):
        while (rest := until - time.monotonic()) > 0:
            try:
                code = process.wait(min(BETWEEN, rest))
                return code if code >= 0 else 128 - code
            except subprocess.TimeoutExpired:
                self.results.keep()
        return 124


def end_with_parent():
    """Asks the system to end this process when ci/gpu itself is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def end(process):
    """Asks a step to end, so that it can write what it has, and ends what is left of its group."""
    if process.poll() is None:
        process.terminate()
        wait_a_little(process)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except OSError:
        pass
    wait_a_little(process)


def wait_a_little(process):
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        pass
