"""Noise whose deviation follows a course over a training of known length."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from nembp.adversarial.settings import AdversarialSettings, course
from nembp.engine.noise import Noise

__all__ = ["ScheduledNoise", "scheduled"]


@dataclass(frozen=True)
class ScheduledNoise(Noise):
    """Noise with σₜ = σ₀ · course(s), s the share of iterations done, in the place of σ₀ / tᵈ.

    Parameters
    ----------
    schedule, until : str, float
        Of :func:`nembp.adversarial.settings.course`.
    iterations : int
        Length of the training.

    >>> ScheduledNoise("nem", std=2.0, schedule="linear", iterations=4).std_at(1, iteration=3)
    1.0
    """

    schedule: str = "constant"
    until: float = 1.0
    iterations: int = 1

    def std_at(self, epoch: int, iteration: int) -> float:
        """Return σₜ for an iteration, counted from 1."""
        return self.std * course(self.schedule, (iteration - 1) / self.iterations, self.until)


def scheduled(
    noise: Mapping[str, Noise], settings: AdversarialSettings, iterations: int
) -> dict[str, Noise]:
    """Return the noise of all places with the course that the settings have for it."""
    if settings.noise_schedule == "power":
        return dict(noise)
    return {place: _scheduled(each, settings, iterations) for place, each in noise.items()}


def _scheduled(noise: Noise, settings: AdversarialSettings, iterations: int) -> ScheduledNoise:
    fields = {field.name: getattr(noise, field.name) for field in dataclasses.fields(noise)}
    return ScheduledNoise(
        **fields,
        schedule=settings.noise_schedule,
        until=settings.noise_until,
        iterations=iterations,
    )
