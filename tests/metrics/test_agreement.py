"""Krippendorff's alpha."""

import pytest

from regen_hf.metrics import agreement


def test_alpha_of_very_many_texts_is_that_of_a_part_of_them(monkeypatch):
    patterns = {(4, 1, 0, 0, 0, 0, 0): 500, (0, 0, 0, 0, 0, 1, 4): 500, (0, 1, 1, 1, 1, 1, 0): 200}
    whole = agreement.alpha(patterns)
    monkeypatch.setattr(agreement, "MAX_UNITS", 400)
    assert agreement.alpha(patterns) == pytest.approx(whole, abs=0.05)
