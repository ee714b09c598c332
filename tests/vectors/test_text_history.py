"""Histories as text in the prompt."""

import pytest

from regen_hf.vectors.text_history import fit_text


def test_a_history_as_text_is_fitted_to_the_window_and_cannot_hold_a_placeholder(processor):
    history = [
        {"item": {"title": f"Pen {number}"}, "review": {"text": f"I bought {processor.item_token} {number}."}}
        for number in range(20)
    ]
    kept, everything = fit_text(processor, history, "user_profile", None)
    assert (kept, processor.item_token_id in everything) == (20, False)
    kept, ids = fit_text(processor, history, "user_profile", len(everything) - 1)
    text = processor.tokenizer.decode(ids)
    assert (kept, "Pen 0" in text, "Pen 1\n" in text) == (19, False, True)
    bare = processor.tokenize_prompt(0, task="user_profile")
    assert fit_text(processor, history, "user_profile", len(bare)) == (0, bare)
    with pytest.raises(ValueError, match="shorten it"):
        fit_text(processor, history, "user_profile", len(bare) - 1)
