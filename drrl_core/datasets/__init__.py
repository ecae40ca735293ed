"""Interaction data: the package is its one module until that is split."""

import sys

from . import tables

sys.modules[__name__] = tables
