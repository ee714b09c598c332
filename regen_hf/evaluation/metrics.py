"""Scores of narratives against references (section 5.2), as plain functions over lists of texts.

BLEU and ROUGE are in percent (0..100), similarity is a cosine (-1..1). A score over nothing is None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import missing_extra

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

RESAMPLES = 1000
"""Bootstrap resamples behind an interval."""


def bleu(predictions: Sequence[str], references: Sequence[str]) -> float | None:
    """Corpus BLEU of sacrebleu with its defaults, in percent.

    >>> bleu(["the red pen writes well"], ["the red pen writes well"])
    100.0
    >>> bleu([], []) is None
    True
    """
    if not _paired(predictions, references):
        return None
    return _bleu_of(_bleu_statistics(predictions, references))


def rouge_lsum(predictions: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """ROUGE-Lsum F1 of each pair by rouge-score with stemming, in percent, shape (pairs,).

    ROUGE-Lsum compares sentence by sentence. The sentences are cut after '.', '!' or '?' followed by a space.

    >>> [round(score) for score in rouge_lsum(["A red pen. It writes."], ["It writes. A red pen."])]
    [100]
    >>> [round(score) for score in rouge_lsum(["", "blue"], ["a red pen", "blue"])]
    [0, 100]
    """
    _paired(predictions, references)
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise missing_extra("rouge-score", "eval") from None
    scorer = RougeScorer(["rougeLsum"], use_stemmer=True)
    pairs = zip(_sentences(references), _sentences(predictions), strict=True)
    return np.array(
        [100 * scorer.score(reference, prediction)["rougeLsum"].fmeasure for reference, prediction in pairs]
    )


def similarity(
    predictions: Sequence[str], references: Sequence[str], encoder: SentenceTransformer
) -> NDArray[np.float64]:
    """Cosine of the embeddings of each pair, shape (pairs,).

    >>> from sentence_transformers import SentenceTransformer
    >>> from sentence_transformers.sentence_transformer.modules import BoW
    >>> words = SentenceTransformer(modules=[BoW(["red", "blue", "pen", "notebook"])], device="cpu")
    >>> similarity(["red pen", "red pen"], ["pen red", "blue pen"], words).round(2).tolist()
    [1.0, 0.5]
    """
    if not _paired(predictions, references):
        return np.zeros(0)
    left, right = (
        np.asarray(encoder.encode(list(texts), normalize_embeddings=True, show_progress_bar=False), dtype=np.float64)
        for texts in (predictions, references)
    )
    cosines: NDArray[np.float64] = (left * right).sum(axis=1)
    return cosines


Interval = dict[str, float | None]
"""`mean`, and the bounds `low` and `high` of its 95 % interval; all None over nothing."""


def bleu_interval(predictions: Sequence[str], references: Sequence[str], seed: int = 0) -> Interval:
    """Corpus BLEU with a 95 % bootstrap interval over the pairs.

    >>> bleu_interval(["a red pen for you"] * 3, ["a red pen for you"] * 3)
    {'mean': 100.0, 'low': 100.0, 'high': 100.0}
    """
    if not _paired(predictions, references):
        return {"mean": None, "low": None, "high": None}
    return _bootstrap(_bleu_statistics(predictions, references), _bleu_of, seed)


def mean_interval(scores: NDArray[np.float64], seed: int = 0) -> Interval:
    """Mean of per-pair `scores` with a 95 % bootstrap interval.

    >>> mean_interval(np.array([2.0, 2.0]))
    {'mean': 2.0, 'low': 2.0, 'high': 2.0}
    >>> mean_interval(np.array([]))
    {'mean': None, 'low': None, 'high': None}
    """
    if not len(scores):
        return {"mean": None, "low": None, "high": None}
    return _bootstrap(scores, lambda sample: float(np.mean(sample)), seed)


def _bootstrap(values: NDArray[np.float64], score: Callable[[NDArray[np.float64]], float], seed: int) -> Interval:
    generator = np.random.default_rng(seed)
    draws = [score(values[generator.integers(0, len(values), len(values))]) for _ in range(RESAMPLES)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"mean": score(values), "low": float(low), "high": float(high)}


def _bleu_statistics(predictions: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """Per pair: matches of 1 to 4 words, their totals, and both lengths, shape (pairs, 10); they add up to a corpus."""
    try:
        from sacrebleu import BLEU
    except ImportError:
        raise missing_extra("sacrebleu", "eval") from None
    scorer = BLEU(effective_order=True)
    rows = []
    for prediction, reference in zip(predictions, references, strict=True):
        found = scorer.sentence_score(prediction, [reference])
        rows.append([*found.counts, *found.totals, found.sys_len, found.ref_len])
    return np.array(rows, dtype=np.float64)


def _bleu_of(statistics: NDArray[np.float64]) -> float:
    from sacrebleu import BLEU

    sums = statistics.sum(axis=0).astype(int).tolist()
    score = BLEU.compute_bleu(sums[0:4], sums[4:8], sums[8], sums[9], smooth_method="exp")
    return round(float(score.score), 10)  # 100.00000000000004 is no score


def _paired(predictions: Sequence[str], references: Sequence[str]) -> int:
    if len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} predictions were given for {len(references)} references, expected as many."
        )
    return len(predictions)


def _sentences(texts: Sequence[str]) -> list[str]:
    return [re.sub(r"(?<=[.!?])\s+", "\n", text.strip()) for text in texts]
