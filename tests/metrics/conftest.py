"""The sentence encoder and the texts of the tests of metrics."""

import pytest

TEXTS = ["a red pen writes well", "the blue notebook lies flat on every desk", "cheap glue. It holds."]


@pytest.fixture(scope="session")
def encoder(finished_run):
    """The content encoder of the tiny run."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(finished_run / "embeddings" / "content_encoder"))
