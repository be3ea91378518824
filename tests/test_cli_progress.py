"""What is told while something trains: on a terminal, however narrow, and after it is gone."""

from __future__ import annotations

import errno
import io
from typing import Any

import pytest
from nembp_cli.gan import _columns
from nembp_cli.progress import LiveProgress
from rich.console import Console
from rich.live import Live

PLAN = {"epochs": 3, "iterations": 300}
ROW = {
    "iteration": 100, "generator/nll": 0.7123, "discriminator/nll": 1.3987, "modes": 24.0,
    "generator/backward_nll": 7.3912, "high_quality": 0.9876, "iterations_per_second": 512.0,
}  # fmt: skip


class Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


def live(file: io.StringIO, width: int) -> LiveProgress:
    progress = LiveProgress("iteration", lambda plan: "a plan", _columns)
    progress.console = Console(file=file, width=width, force_terminal=True, color_system=None)
    progress.live = Live(console=progress.console, auto_refresh=False)
    return progress


def tell(progress: LiveProgress, row: dict[str, Any] = ROW) -> None:
    with progress:
        progress.note("a note")
        progress.start(PLAN)
        progress.row(row)


@pytest.mark.parametrize("width", [12, 20, 30, 45, 60, 80, 200])
def test_numbers_are_left_out_rather_than_cut_short(width):
    file = io.StringIO()
    tell(live(file, width))
    (line,) = {line.strip() for line in file.getvalue().splitlines() if "100/300 " in line + " "}
    whole = ["100/300", "1.399", "0.7123", "7.391", "24", "98.8 %", "512"]
    assert line.split("  ")[0] == "100/300"
    cells = [cell for cell in line.split("  ") if cell.strip()]
    assert [cell.strip() for cell in cells] == whole[: len(cells)]
    assert len(cells) == {12: 1, 20: 2, 30: 3, 45: 5, 60: 6}.get(width, 7)


def test_a_terminal_that_is_gone_ends_no_training():
    tell(live(Gone(), 80))
