"""What a replicate can be: a training run of a network, or of a generator and a discriminator."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from nembp.runs.config import RunConfig
from nembp.runs.gan_config import GanConfig
from nembp.runs.option_fields import OptionFields

__all__ = ["KINDS", "Config", "Kind"]

Config = OptionFields


@dataclass(frozen=True)
class Kind:
    """A kind of replicate.

    Parameters
    ----------
    config : type
        Whose fields its arms may set.
    reserved : tuple of str
        Fields that are a replicate's own: protocols say them elsewhere.
    replicate, network : str
        Functions as "module:name", imported when first used: the first trains and measures as a
        configuration says (see `nembp.experiments.replicate`), the second prepares as much and
        returns a network, which shows before the first replicate whether all can be run.
    clock : str
        What its curves count.
    """

    config: type[Config]
    reserved: tuple[str, ...]
    replicate: str
    network: str
    clock: str

    def function(self, name: str) -> Callable[..., Any]:
        """Return its function ``replicate`` or ``network``."""
        module, _, function = getattr(self, name).partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
        return found


_OWN: Final = ("seed", "data_dir", "device", "threads")
_HERE: Final = "nembp.experiments.replicate"
KINDS: Final[dict[str, Kind]] = {
    "train": Kind(
        RunConfig,
        (*_OWN, "patience", "validation_fraction"),
        f"{_HERE}:replicate",
        f"{_HERE}:network_of",
        "epoch",
    ),
    "gan": Kind(GanConfig, _OWN, f"{_HERE}:adversarial", f"{_HERE}:generator_of", "checkpoint"),
}
