"""Scores of narratives against references (section 5.2), as functions of lists of texts.

`statistics` returns additive numbers per pair of texts; `scores` computes every metric from their sums over any set of
users, such as a bootstrap resample. BLEU and ROUGE are in percent (0..100), similarity is a cosine (-1..1), the others
are ratios. A score over nothing is NaN.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

try:
    from ..errors import InputError, MissingPackageError
except ImportError:  # the metric on the Hub has this file without the package; `evaluate` checks the libraries
    InputError = ValueError  # type: ignore[misc,assignment]

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
METRICS = ("bleu", *ROUGE, "similarity", "length_ratio", "distinct1", "distinct2", "unique_share")
STATISTICS = (
    *(f"bleu_{part}_{order}" for part in ("matches", "total") for order in range(1, 5)),
    "tokens",
    "reference_tokens",
    *ROUGE,
    "similarity",
    *(f"{part}_{unit}" for unit in ("words", "word_pairs", "sentences") for part in ("distinct", "all")),
)
"""Columns of the result of `statistics`."""


def rouge(predictions: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """F1 of ROUGE-1, -2, -L and -Lsum of each pair by rouge-score with stemming, in percent, shape (pairs, 4).

    ROUGE-Lsum compares the sentences that `sentences` returns.

    >>> rouge(["A red pen. It writes.", ""], ["It writes. A red pen.", "blue"]).round().tolist()
    [[100.0, 75.0, 60.0, 100.0], [0.0, 0.0, 0.0, 0.0]]
    """
    _paired(predictions, references)
    scorer = _rouge_scorer()
    table = np.zeros((len(predictions), len(ROUGE)))
    for row, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        scored = scorer.score("\n".join(sentences(reference)), "\n".join(sentences(prediction)))
        table[row] = [100 * scored[name].fmeasure for name in ROUGE]
    return table


def similarity(
    predictions: Sequence[str], references: Sequence[str], encoder: SentenceTransformer
) -> NDArray[np.float64]:
    """Cosine of the embeddings of each pair, shape (pairs,).

    Raises:
        InputError: the encoder returned vectors that are not finite.

    >>> from sentence_transformers import SentenceTransformer
    >>> from sentence_transformers.sentence_transformer.modules import BoW
    >>> words = SentenceTransformer(modules=[BoW(["red", "blue", "pen", "notebook"])], device="cpu")
    >>> similarity(["red pen", "red pen"], ["pen red", "blue pen"], words).round(2).tolist()
    [1.0, 0.5]
    """
    if not _paired(predictions, references):
        return np.zeros(0)
    texts = list(dict.fromkeys([*predictions, *references]))  # controls write the same text for many users
    vectors = np.asarray(
        encoder.encode(texts, normalize_embeddings=True, show_progress_bar=False), dtype=np.float64
    )  # (texts, D)
    wrong = ~np.isfinite(vectors).all(axis=1)
    if wrong.any():
        raise InputError(
            f"The encoder behind `similarity` returned vectors that are not finite for {wrong.sum()} of {len(texts)} "
            f"texts, such as {texts[int(wrong.argmax())]!r}. Choose another encoder with --encoder."
        )
    index = {text: row for row, text in enumerate(texts)}
    left, right = (vectors[[index[text] for text in side]] for side in (predictions, references))
    cosines: NDArray[np.float64] = (left * right).sum(axis=1)
    return cosines


def distinct(units: Sequence[Sequence[Hashable]]) -> NDArray[np.float64]:
    """The share of each text in the number of distinct units, and its number of units: shape (texts, 2).

    Distinct-n (Li et al. 2016) is the number of distinct n-grams over the number of all n-grams. Each occurrence of a
    unit that occurs k times in all texts counts 1 / k, so that both columns add up, and a user who is drawn twice in a
    resample does not count as repetition.

    >>> distinct([["a", "b"], ["a"]]).tolist()
    [[1.5, 2.0], [0.5, 1.0]]
    """
    counts = Counter(unit for text in units for unit in text)
    rows = [(sum(1 / counts[unit] for unit in text), float(len(text))) for text in units]
    return np.array(rows).reshape(-1, 2)


def sentences(text: str) -> list[str]:
    """The sentences of a text, cut after '.', '!' or '?' followed by a space.

    >>> sentences("It writes. Is it red? Yes")
    ['It writes.', 'Is it red?', 'Yes']
    """
    return re.split(r"(?<=[.!?])\s+", text.strip()) if text.strip() else []


def statistics(
    predictions: Sequence[str], references: Sequence[str], encoder: SentenceTransformer | None = None
) -> NDArray[np.float64]:
    """The additive numbers of each pair behind all metrics, shape (pairs, S) in the order of `STATISTICS`.

    Args:
        predictions: the generated texts.
        references: one for each prediction.
        encoder: the model behind `similarity`, which is NaN without one.
    """
    pairs = _paired(predictions, references)
    words = [re.findall(r"\w+", prediction.lower()) for prediction in predictions]
    table = np.column_stack(
        [
            bleu_statistics(predictions, references),
            rouge(predictions, references),
            np.full(pairs, np.nan) if encoder is None else similarity(predictions, references, encoder),
            distinct(words),
            distinct([list(itertools.pairwise(text)) for text in words]),
            distinct([sentences(prediction) for prediction in predictions]),
        ]
    )
    return table.reshape(pairs, len(STATISTICS))


def scores(sums: NDArray[np.float64], pairs: int) -> dict[str, NDArray[np.float64]]:
    """Every metric from `sums` of statistics over `pairs` pairs, shape (…, S) to (…); NaN over nothing."""
    column = {name: sums[..., number] for number, name in enumerate(STATISTICS)}
    return {
        "bleu": _bleu_from(sums[..., :10]) if pairs else np.full(sums.shape[:-1], np.nan),
        **{name: _ratio(column[name], pairs) for name in (*ROUGE, "similarity")},
        "length_ratio": _ratio(column["tokens"], column["reference_tokens"]),
        "distinct1": _ratio(column["distinct_words"], column["all_words"]),
        "distinct2": _ratio(column["distinct_word_pairs"], column["all_word_pairs"]),
        "unique_share": _ratio(column["distinct_sentences"], column["all_sentences"]),
    }


def signatures() -> dict[str, str]:
    """The signatures of BLEU and ROUGE: library, version and options.

    Raises:
        RegenError: sacrebleu or rouge-score is not installed; the message names the extra.
    """
    import importlib.metadata

    _rouge_scorer()
    scorer = _bleu()()
    scorer.corpus_score(["a"], [["a"]])
    version = importlib.metadata.version("rouge-score")
    return {
        "bleu_signature": str(scorer.get_signature()),
        "rouge_signature": f"F1|stemmer:porter|sentences:after .!? and a space|rouge-score:{version}",
    }


def bleu_statistics(predictions: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """Per pair: matches of 1 to 4 words, numbers of n-grams, and both lengths in tokens, shape (pairs, 10)."""
    scorer = _bleu()(effective_order=True)
    rows = []
    for prediction, reference in zip(predictions, references, strict=True):
        score = scorer.sentence_score(prediction, [reference])
        rows.append([*score.counts, *score.totals, score.sys_len, score.ref_len])
    return np.array(rows, dtype=np.float64).reshape(-1, 10)


def _bleu_from(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corpus BLEU from summed statistics, (…, 10) to (…): sacrebleu's `compute_bleu`, vectorised over corpora."""
    matches, totals, tokens, reference_tokens = sums[..., 0:4], sums[..., 4:8], sums[..., 8], sums[..., 9]
    with np.errstate(divide="ignore", invalid="ignore"):
        # Smoothing `exp`: the k-th order without a match counts as 1 / 2^k matches.
        missed = matches == 0
        precisions = np.where(missed, 0.5 ** missed.cumsum(axis=-1), matches) / totals
        score = 100 * np.exp(np.log(precisions).mean(axis=-1) + np.minimum(0.0, 1 - reference_tokens / tokens))
    score = np.where(matches.any(axis=-1) & (totals > 0).all(axis=-1), score, 0.0)
    score = np.where(np.isnan(sums).any(axis=-1), np.nan, score)
    return np.asarray(score.round(10))  # rounding errors give 100.00000000000004


def _bleu() -> Any:
    try:
        from sacrebleu import BLEU
    except ImportError:
        raise MissingPackageError("sacrebleu") from None
    return BLEU


@functools.cache
def _rouge_scorer() -> Any:
    """The scorer of rouge-score, with a cache of its stemmer."""
    try:
        from nltk.stem.porter import PorterStemmer
        from rouge_score.rouge_scorer import RougeScorer
        from rouge_score.tokenize import tokenize
    except ImportError:
        raise MissingPackageError("rouge-score") from None
    # The cache saves 4.3 of 8.0 CPU seconds for 4,350 narratives, 11 % of `regen evaluate` (40 CPU seconds without it).
    stemmer = SimpleNamespace(stem=functools.lru_cache(100_000)(PorterStemmer().stem))
    tokenizer = SimpleNamespace(tokenize=lambda text: tokenize(text, stemmer))
    return RougeScorer(list(ROUGE), tokenizer=tokenizer)


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64] | int) -> NDArray[np.float64]:
    denominator = np.asarray(denominator, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def _paired(predictions: Sequence[str], references: Sequence[str]) -> int:
    """The number of pairs of texts."""
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions have {len(references)} references, expected one for each.")
    return len(predictions)
