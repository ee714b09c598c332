"""Names of the models that an evaluation compares."""

from __future__ import annotations

HELD_OUT = ("test", "validation")


CONTROLS = {
    "fused": "the model",
    "content": "the same model shown the content half of its soft tokens alone",
    "cf": "the same model shown the CF half of its soft tokens alone",
    "empty_history": "the same model without any history",
    "shuffled_history": "the same model with another user's history",
    "text_history": "the same language model with the history as text in its prompt, the latest purchases that fit its "
    "window; it was not trained on such prompts",
    "most_frequent": "the most frequent narrative of the train users",
    "nearest": "the narrative of the train user whose history is most alike, by the mean CF and content vectors",
}
"""The models of the results: the one in question first, then what tells whether it uses the history."""
