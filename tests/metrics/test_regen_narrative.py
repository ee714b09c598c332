"""The metric of the library `evaluate`."""

import pytest

from regen_hf.metrics import text_metrics as metrics
from tests.metrics.conftest import TEXTS


def test_the_metric_loads_from_its_path(finished_run, tmp_path):
    import evaluate

    from regen_hf.metrics import regen_narrative

    metric = evaluate.load(regen_narrative.__file__, cache_dir=str(tmp_path))
    found = metric.compute(predictions=TEXTS, references=TEXTS)
    assert list(found) == list(metrics.METRICS)
    assert found["bleu"] == found["rougeLsum"] == pytest.approx(100)
    assert found["similarity"] is None
    encoder = str(finished_run / "embeddings" / "content_encoder")
    found = metric.compute(predictions=TEXTS, references=TEXTS, encoder=encoder)
    assert found["similarity"] == pytest.approx(1, abs=1e-5)
