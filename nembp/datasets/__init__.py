"""Data sets: readers that take nothing on trust, and what training needs of them.

`load` finds a reader by name; `register` adds one; `assemble` is the door through which readers
pass raw arrays so that they are checked, split and scaled alike.
"""

from __future__ import annotations

from nembp.datasets.assemble import Raw as Raw
from nembp.datasets.assemble import assemble as assemble
from nembp.datasets.dataset import Dataset as Dataset
from nembp.datasets.dataset import Request as Request
from nembp.datasets.dataset import Split as Split
from nembp.datasets.dataset import class_indices as class_indices
from nembp.datasets.dataset import class_means as class_means
from nembp.datasets.dataset import feature_means as feature_means
from nembp.datasets.dataset import with_columns as with_columns
from nembp.datasets.loading import available as available
from nembp.datasets.loading import load as load
from nembp.datasets.loading import register as register
from nembp.datasets.scaling import Scaling as Scaling
from nembp.datasets.sources import Rows as Rows
from nembp.datasets.sources import as_rows as as_rows
