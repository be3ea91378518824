"""``python -m nembp``, the same as the command ``nembp``."""

from __future__ import annotations

from nembp_cli.entry import main

if __name__ == "__main__":
    main()
