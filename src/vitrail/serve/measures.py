"""What the service counts of itself, as text for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Measures:
    """Counters of one service, in a registry of their own.

    Args:
        waiting: how many images wait for the model now.
        inside: how many images are in the service now, from upload to answer.
    """

    def __init__(self, waiting: Callable[[], int], inside: Callable[[], int]) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "vitrail_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "vitrail_request_seconds", "From a request to its answer.", ["route"], buckets=SECONDS, registry=registry
        )
        self.batches = Histogram(
            "vitrail_batch_images", "Images that the model computed at once.", buckets=IMAGES, registry=registry
        )
        self.computing = Histogram(
            "vitrail_batch_seconds", "What the model took for a batch.", buckets=SECONDS, registry=registry
        )
        self.unreadable = Counter("vitrail_unreadable_images", "Images that could not be decoded.", registry=registry)
        gauges = {"waiting": ("wait for the model", waiting), "inside": ("are between upload and answer", inside)}
        for name, (what, count) in gauges.items():
            Gauge(f"vitrail_images_{name}", f"Images that {what}.", registry=registry).set_function(count)
        ProcessCollector(registry=registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def computed(self, images: int, seconds: float) -> None:
        """Count a batch."""
        self.batches.observe(images)
        self.computing.observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
