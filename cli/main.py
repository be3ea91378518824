"""The command ``nembp``: its subcommands, its version, and what becomes of errors.

Nothing here imports NumPy, and a subcommand's module is imported only when it is run, so that
``nembp --help`` appears at once. To add a command, add a line to ``COMMANDS``.
"""

from __future__ import annotations

from typing import Final

import click

from nembp import __version__

from .group import CommandGroup

__all__ = ["cli", "main"]

# name: (module:command, one line of what it is for)
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "train": (".train:train", "Train a bidirectional network and leave a run folder."),
    "evaluate": (".evaluate:evaluate", "Score a trained network in both directions."),
    "predict": (".predict:predict", "Run a trained network in either direction."),
    "gan": (".gan:gan", "Train a generator against a discriminator."),
    "sample": (".sample:sample", "Draw samples from a trained generator."),
    "draw": (".draw:draw", "Draw which noise a trained network's training keeps."),
    "verify": (".verify:verify", "Try the laws of the engine, or check your own gradient."),
    "data": (".data:data", "List, inspect and fetch data sets."),
    "experiment": (".experiment:experiment", "Settle published claims, with controls."),
    "bench": (".bench:bench", "Time a training step beside its rivals and the bare products."),
    "info": (".info:info", "Show versions, devices, BLAS and threads; or a trained network."),
}

EPILOG: Final = """\
\b
Exit codes:
  0    success
  1    an error of nembp or of the system
  2    wrong usage: options, configuration, architecture
  3    bad data or a damaged model file
  4    no usable GPU, though --device gpu asked for one
  5    training diverged (the last good model is saved)
  6    the output cannot be written
  7    a law or a gradient does not hold (nembp verify)
  8    the GPU's memory is too small
  130  interrupted (the model of the last epoch is saved)

\b
Every option of a command can also be set by an environment variable, such as
NEMBP_TRAIN_EPOCHS=10 for `nembp train --epochs 10`.
"""


@click.group(
    cls=CommandGroup,
    commands_table=COMMANDS,
    package=__package__,
    epilog=EPILOG,
    context_settings={
        "auto_envvar_prefix": "NEMBP",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="nembp", message="%(prog)s %(version)s")
def cli() -> None:
    """Train one network in both directions over the same weights.

    The forward direction maps x to y, the backward direction maps y back to x through the
    transposed weights: bidirectional backpropagation (B-BP), with NEM noise where it helps.

    `nembp train` alone learns handwritten digits in a few seconds.
    """


def main() -> None:
    """Run the command line."""
    cli(prog_name="nembp")
