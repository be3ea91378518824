"""What starts ``nembp``: nothing is imported before Ctrl-C is one line, as it is afterwards."""

from __future__ import annotations

import os


def main() -> None:
    """Import the command line and run it."""
    try:
        from .main import main as run
    except KeyboardInterrupt:
        os.write(2, b"nembp: error: interrupted\n")
        raise SystemExit(130) from None
    run()
