"""Folders that tests use."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The checkout."""
SHARED_DATA = ROOT.parent / "shared" / "data"
"""The development data beside the checkout, where there are any."""
SMOLLM2 = ROOT / ".models" / "smollm2-135m"
"""The model of the tests with the marker real_lm, from `make models`."""
