"""What the peers of ci/side-by-side have in common: how steps are timed, and the one JSON line that is printed."""

import json
import resource
import statistics
import time


def timed(step, seconds, warm=2):
    """Median seconds of a step, after some that are not counted."""
    for _ in range(warm):
        step()
    samples, end = [], time.perf_counter() + seconds
    while len(samples) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


def say(tokens, seconds, version):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"tokens_per_second": tokens / seconds, "peak_rss_bytes": peak, "version": version}))
