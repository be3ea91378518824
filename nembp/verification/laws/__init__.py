"""The laws of the engine: functions of a random case, in a table.

``LAWS[name]`` says what must hold and where it comes from, and measures how far a
:class:`~nembp.verification.cases.Case` is from it. The definitions that the engine is compared
with are written out a second time in :mod:`nembp.verification.laws.textbook`.
"""

from __future__ import annotations

from nembp.verification.laws.deviations import Deviation, check
from nembp.verification.laws.law import Law
from nembp.verification.laws.table import LAWS

__all__ = ["LAWS", "Deviation", "Law", "check"]
