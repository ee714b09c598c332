"""Text metrics agree with the reference implementations."""

import numpy as np
import pytest

from regen_hf.errors import InputError
from regen_hf.metrics import text_metrics as metrics
from tests.metrics.conftest import TEXTS


def point(predictions, references, encoder=None):
    return metrics.scores(metrics.statistics(predictions, references, encoder).sum(axis=0), len(predictions))


def test_bleu_is_sacrebleus_own_also_of_many_resamples_at_once():
    import sacrebleu

    predictions = ["a red pen writes", "blue notebook lies on the desk", "glue. It holds.", "", "of", "no such words"]
    references = [*TEXTS, "a pen", "of", "a text"]
    assert point(predictions, references)["bleu"] == pytest.approx(
        sacrebleu.corpus_bleu(predictions, [references]).score, abs=1e-6
    )
    generator = np.random.default_rng(0)
    table = metrics.bleu_statistics(predictions, references)
    for _ in range(200):
        drawn = generator.integers(0, 6, generator.integers(1, 7))
        expected = sacrebleu.corpus_bleu([predictions[n] for n in drawn], [[references[n] for n in drawn]]).score
        sums = np.zeros((1, len(metrics.STATISTICS)))
        sums[0, :10] = table[drawn].sum(axis=0)
        assert metrics.scores(sums, len(drawn))["bleu"][0] == pytest.approx(expected, abs=1e-6), drawn


def test_rouge_is_rouge_scores_own():
    from rouge_score.rouge_scorer import RougeScorer

    predictions = ["A red pen; writing wells.", "the notebooks lie on every desk", "It holds. Cheap glue."]
    scorer = RougeScorer(list(metrics.ROUGE), use_stemmer=True)
    for prediction, reference, found in zip(predictions, TEXTS, metrics.rouge(predictions, TEXTS), strict=True):
        cut = ("\n".join(metrics.sentences(text)) for text in (reference, prediction))
        expected = scorer.score(*cut)
        assert found.tolist() == [100 * expected[name].fmeasure for name in metrics.ROUGE]


def test_a_worse_text_scores_lower_on_every_metric_of_the_reference(encoder):
    same, other = point(TEXTS, TEXTS, encoder), point(TEXTS[1:] + TEXTS[:1], TEXTS, encoder)
    for metric in ("bleu", *metrics.ROUGE):
        assert same[metric] == pytest.approx(100)
        assert other[metric] < 50
    assert same["similarity"] == pytest.approx(1, abs=1e-5)
    assert same["similarity"] > other["similarity"]


def test_length_ratio_and_distinctness():
    found = point(["a b c d", "a b. Yes yes.", "a b. Yes yes."], ["a b", "a b", "a b c d"])
    assert found["length_ratio"] == pytest.approx((4 + 6 + 6) / 8)  # with the full stops, as sacrebleu cuts
    assert found["distinct1"] == pytest.approx(5 / 12)  # a b c d yes
    assert found["distinct2"] == pytest.approx(5 / 9)  # ab bc cd, b-yes, yes-yes
    assert found["unique_share"] == pytest.approx(3 / 5)
    assert point(["one text"] * 4, ["a"] * 4)["unique_share"] == 0.25


def test_vectors_that_are_not_finite_raise_an_error():
    class Broken:
        def encode(self, texts, **_):
            return np.full((len(texts), 2), np.nan)

    with pytest.raises(InputError, match=r"not finite for 2 of 2 texts, such as 'a pen'\. Choose another encoder"):
        metrics.similarity(["a pen"], ["glue"], Broken())
