"""The scores as an `evaluate.Metric`: `evaluate.load(path of this file)` works offline."""

import datasets
import evaluate
import numpy as np

from regen_hf.evaluation.metrics import bleu, rouge_lsum


class RegenNarrative(evaluate.Metric):
    """BLEU and ROUGE-Lsum of narratives, in percent; None over nothing."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="BLEU (sacrebleu) and ROUGE-Lsum (rouge-score) of narratives, in percent.",
            citation="Sayana et al. 2024, Beyond Retrieval, arXiv:2410.16780",
            inputs_description="predictions and references: lists of texts of the same length",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float | None]:
        scores = rouge_lsum(predictions, references)
        return {
            "bleu": bleu(predictions, references),
            "rougeLsum": float(np.mean(scores)) if len(scores) else None,
        }
