"""Metrics for Prometheus. ``integrations/grafana`` shows them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..job import Admitted, Cancelled, Event, Failed, Finished

if TYPE_CHECKING:
    from ..workers import Workers
    from .runs import Run

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """The metrics of one server, in a registry of its own.

    Args:
        workers: Whose state is read when the metrics are asked for.
    """

    def __init__(self, workers: Workers) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "diffuse_fast_requests", "Requests that ended, by outcome.", ["model", "outcome"], registry=self._registry
        )
        self._rejections = Counter(
            "diffuse_fast_rejections", "Requests that were refused, by reason.", ["reason"], registry=self._registry
        )
        self._samples = Counter("diffuse_fast_images", "Samples that were drawn.", ["model"], registry=self._registry)
        self._wait = Histogram(
            "diffuse_fast_queue_wait_seconds",
            "From the request to its first sample's first step.",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._latency = Histogram(
            "diffuse_fast_request_seconds",
            "From the request to its last sample.",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(_State(workers))

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def rejected(self, reason: str) -> None:
        """A request was refused before it was queued."""
        self._rejections.labels(reason).inc()

    def event(self, run: Run, event: Event) -> None:
        """Something happened to a run; ``event`` is already among its events."""
        model = run.job.model
        if isinstance(event, Admitted):
            if sum(isinstance(other, Admitted) for other in run.events) == 1:
                self._wait.labels(model).observe(time.monotonic() - run.began)
        elif isinstance(event, Finished):
            self._samples.labels(model).inc()

    def ended(self, run: Run) -> None:
        """A run ended."""
        model = run.job.model
        if any(isinstance(event, Cancelled) for event in run.events):
            outcome = "cancelled"
        else:
            failed = next((end for end in run.outcomes() if isinstance(end, Failed)), None)
            outcome = "completed" if failed is None else failed.kind
            self._latency.labels(model).observe(time.monotonic() - run.began)
        self._requests.labels(model, outcome).inc()


class _State(Collector):
    """The state of the workers at the moment of asking."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        gauges = {
            "waiting": GaugeMetricFamily("diffuse_fast_samples_waiting", "Samples in the queue.", labels=["model"]),
            "running": GaugeMetricFamily("diffuse_fast_samples_running", "Samples in the batch.", labels=["model"]),
            "occupancy": GaugeMetricFamily("diffuse_fast_batch_occupancy", "Used part of the batch, 0 to 1.", labels=["model"]),
            "seconds_per_tick": GaugeMetricFamily("diffuse_fast_step_seconds", "Seconds per step, lately.", labels=["model"]),
        }
        counters = {
            "ticks": CounterMetricFamily("diffuse_fast_steps", "Steps of the batch.", labels=["model"]),
            "restarts": CounterMetricFamily(
                "diffuse_fast_worker_restarts", "Workers that died and were replaced.", labels=["model"]
            ),
        }
        families: dict[str, Any] = {**gauges, **counters}
        for model, state in self._workers.snapshot().models.items():
            for name, family in families.items():
                family.add_metric([model], getattr(state, name))
        ready = GaugeMetricFamily("diffuse_fast_ready", "1 if requests are taken.", value=float(self._workers.ready))
        yield from (*families.values(), ready)
