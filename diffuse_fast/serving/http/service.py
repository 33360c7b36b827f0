"""What the routes share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import DiffuseFastError, suggest
from ..job import Job
from .metrics import Metrics
from .once import Once
from .refusals import RETRY, of_error, refusal
from .runs import Run, Shelf
from .settings import Settings

if TYPE_CHECKING:
    from ..workers import ModelInfo, Workers


@dataclass(frozen=True)
class Service:
    """The workers, and what stands in front of them."""

    workers: Workers
    settings: Settings
    metrics: Metrics
    jobs: Shelf
    once: Once

    def submit(self, job: Job, linger: float = 0.0) -> Run:
        """Queue a job.

        Raises:
            HTTPException: it was refused, and nothing was queued.
        """
        try:
            ticket = self.workers.submit(job)
        except DiffuseFastError as error:
            raise of_error(error) from error
        return Run(ticket, linger, self.metrics)

    def model(self, name: str | None) -> ModelInfo:
        """A model by its name; None is the first.

        Raises:
            HTTPException: 404, no model has that name.
        """
        models = self.workers.models
        if name is None:
            return next(iter(models.values()))
        if name not in models:
            raise refusal(404, "model_not_found", f"there is no model {name!r}.{suggest(str(name), models)}", param="model")
        return models[name]

    def wait_for_room(self) -> float | None:
        """None where some model's queue has room, else the seconds after which to try again."""
        models = self.workers.snapshot().models.values()
        if not models or any(model.waiting < self.workers.queue for model in models):
            return None
        return RETRY
