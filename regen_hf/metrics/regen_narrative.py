"""The scores as an `evaluate.Metric`, loaded by `evaluate.load` from the path of this file or from the Hub.

`evaluate` parses the imports below: it copies `.text_metrics` beside this file and reports a missing library.
"""

import datasets
import evaluate
import numpy as np
import rouge_score  # noqa: F401
import sacrebleu  # noqa: F401

from .text_metrics import scores, statistics


class RegenNarrative(evaluate.Metric):
    """The metrics of `regen evaluate`: BLEU and ROUGE in percent, similarity as a cosine; None over no texts."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=(
                "Scores of narratives against references: BLEU (sacrebleu), ROUGE-1, -2, -L and -Lsum (rouge-score) in "
                "percent, cosine of sentence embeddings, length ratio, distinct-1 and -2, share of unique sentences."
            ),
            citation="Sayana et al. 2024, Beyond Retrieval, arXiv:2410.16780",
            inputs_description=(
                "predictions and references: lists of texts of the same length; encoder: name or path of a "
                "sentence-transformers model behind `similarity`, which is None without one"
            ),
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(
        self, predictions: list[str], references: list[str], encoder: str | None = None
    ) -> dict[str, float | None]:
        model = None
        if encoder:
            from sentence_transformers import SentenceTransformer

            model = SentenceTransformer(encoder)
        table = statistics(predictions, references, model)
        metrics = scores(table.sum(axis=0), len(predictions))
        return {name: None if np.isnan(value) else float(value) for name, value in metrics.items()}
