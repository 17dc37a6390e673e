"""What the kernel says of this process: processor time, memory, open files.

prometheus_client's own collector reads /proc/stat first and shows nothing where the unit hides it (ProcSubset=pid).
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_PAGE = resource.getpagesize()


class Process(Collector):
    """Read anew at each scrape; what cannot be read (no descriptor is free) is left out of that scrape."""

    def __init__(self) -> None:
        started = time.time()
        self._gauges: list[tuple[str, str, Callable[[], float]]] = [
            ("resident_memory_bytes", "Resident memory.", _resident),
            ("open_fds", "Open file descriptors.", _open_fds),
            ("max_fds", "How many file descriptors may be open.", _max_fds),
            ("start_timestamp_seconds", "When the process started, since 1970.", lambda: started),
        ]

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("jobsd_process_cpu_seconds", "Processor time, user and system.", value=_cpu_s())
        for name, doc, read in self._gauges:
            try:
                yield GaugeMetricFamily("jobsd_process_" + name, doc, value=read())
            except OSError:
                continue

    describe = collect


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _resident() -> float:
    with open("/proc/self/statm") as statm:
        return float(int(statm.read().split()[1]) * _PAGE)


def _open_fds() -> float:
    return float(len(os.listdir("/proc/self/fd")))


def _max_fds() -> float:
    return float(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
