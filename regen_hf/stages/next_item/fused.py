"""The trained model as a recommender: its item head ranks the catalogue, and it endorses its own first choice.

Shapes: U users, B users of a batch, N purchases of the longest history of a batch, I items of the catalogue, E width of
the item head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ... import outputs
from ...errors import RunError
from ...model.interactions import interaction_features
from ...progress import Bar
from ...schema import purchase_columns
from .recommender import Cases

if TYPE_CHECKING:
    import torch

BATCH = 64
"""Histories per forward pass."""
ITEMS = 65_536
"""Items whose embeddings are computed at once."""


class FusedModel:
    """The model of a run, with the vectors of the users of a split.

    A history ends with the last purchase, which is hidden: the query before it does not read it, and an endorsement is
    written about the chosen item in its place.
    """

    def __init__(self, run: Path, split: str) -> None:
        import torch

        from ...model import RegenForCausalLM, RegenProcessor
        from ...vectors.histories import Histories

        folder = outputs.folder(run, "train")
        self.run, self.split = run, split
        self.model = RegenForCausalLM.from_pretrained(folder).eval()
        self.model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        self.processor = RegenProcessor.from_pretrained(folder)
        self.items = outputs.item_vectors(run)
        self.histories = Histories.of(run, split, self.items)
        self.features = _features(run, split, self.model.config.interaction_features)
        self.embeddings = np.concatenate(
            [self._embeddings(slice(start, start + ITEMS)) for start in range(0, len(self.items.asins), ITEMS)]
        )  # (I, E); in parts, because the c_i of all items need gigabytes
        self._check("the items", self.embeddings)

    def _embeddings(self, part: slice) -> NDArray[np.float32]:
        """The embeddings of a part of the catalogue."""
        import torch

        content = torch.from_numpy(self.items.content[part].astype(np.float32))
        self.model.set_catalogue(torch.from_numpy(self.items.item_factors[part]), content)
        with torch.inference_mode():
            embeddings: NDArray[np.float32] = self.model.item_embeddings().float().cpu().numpy()
        return embeddings

    @classmethod
    def of(cls, run: Path, split: str) -> FusedModel | None:
        """The model of `run`; None if it has no item head."""
        from ...model import RegenConfig

        has_head = RegenConfig.from_pretrained(outputs.folder(run, "train")).item_dim is not None
        return cls(run, split) if has_head else None

    def scores(
        self, cases: Cases, critiques: Sequence[str | None] | None = None
    ) -> Callable[[slice], NDArray[np.float64]]:
        """A function from a slice of the users of `cases` to the cosine of each item, shape (U, I).

        `critiques` are about the purchase before the hidden one, one or None for each user.
        """
        critiques = critiques or [None] * len(cases)
        import torch

        queries = np.zeros((len(cases), self.embeddings.shape[1]), np.float32)  # (U, E)
        order = by_length(cases, range(len(cases)))
        with torch.inference_mode():
            for start in Bar(range(0, len(order), BATCH), "reading the histories", unit="batches"):
                batch = order[start : start + BATCH]
                rows, texts = [cases.rows[case] for case in batch], [critiques[case] for case in batch]
                inputs = self.inputs(rows, prompt="", critiques=texts)
                last = inputs["history_mask"].sum(1) - 1  # (B,)
                found = self.model.item_queries(**inputs)[torch.arange(len(batch)), last]
                queries[batch] = found.float().cpu().numpy()
        self._check("a history", queries)
        return lambda users: (queries[users] @ self.embeddings.T).astype(np.float64)

    def _check(self, about: str, vectors: NDArray[np.float32]) -> None:
        if not np.isfinite(vectors).all():  # no score is greater than NaN, so such an item would rank first
            raise RunError(
                f"The trained model of {self.run} computes NaN or infinity for {about}, expected finite numbers. "
                f"Lower training.learning_rate, and run `regen train {self.run}` again."
            )

    def endorse(
        self,
        rows: Sequence[int],
        task: str,
        new_tokens: int,
        choose: Callable[[NDArray[np.float64]], NDArray[np.int64]],
    ) -> tuple[NDArray[np.int64], list[str]]:
        """The chosen item for the users `rows` of the split, (B,), and its endorsement, from one pass.

        `choose` returns an item for each row of scores (B, I).
        """
        import torch

        from ...model.recommendation import OpenPrompt

        window = self.model.config.window
        with torch.inference_mode():
            inputs = self.inputs(rows, task=task, max_length=None if window is None else window - new_tokens)
            prompt = OpenPrompt(self.model, inputs)
            chosen = choose((prompt.queries.float().cpu().numpy() @ self.embeddings.T).astype(np.float64))
            arrays: dict[str, NDArray[Any]] = {
                "history_cf": self.items.item_factors,
                "history_content": self.items.content,
            }
            vectors = {name: torch.from_numpy(array[chosen].astype(np.float32)) for name, array in arrays.items()}
            filled = prompt.fill(vectors)
            tokens = self.model.generate(**filled, max_new_tokens=new_tokens, do_sample=False, num_beams=1)
        texts = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return chosen, [text.strip() for text in texts]

    def inputs(
        self,
        rows: Sequence[int],
        task: str | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
        critiques: Sequence[str | None] = (),
    ) -> dict[str, torch.Tensor]:
        """The model's inputs for the users `rows` of the split, with the last purchase as its metadata only.

        `critiques` are as in `scores`.
        """
        from ...vectors.histories import padded_features

        offsets = self.histories.store.offsets
        fitted = [
            self.processor.fit(int(offsets[row + 1] - offsets[row]), task, prompt, max_length, [critique])
            for row, critique in zip(rows, critiques or [None] * len(rows), strict=True)
        ]
        kept, prompts = [number for number, _ in fitted], [ids for _, ids in fitted]
        vectors = self.histories.batch(list(rows), [True] * len(rows), kept)
        if self.features is not None:
            ends = [offsets[row + 1] for row in rows]
            shown = [self.features[end - number : end].tolist() for end, number in zip(ends, kept, strict=True)]
            vectors["history_features"] = padded_features(shown, vectors["history_mask"], self.features.shape[1])
        tokens = self.processor.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        return {name: value.to(self.model.device) for name, value in {**tokens, **vectors}.items()}


def by_length(cases: Cases, numbers: Iterable[int]) -> list[int]:
    """`numbers` of cases with the shortest histories first, so that a batch needs little padding."""
    return sorted(numbers, key=lambda number: len(cases.histories[number]))


def _features(run: Path, split: str, names: list[str]) -> NDArray[np.float32] | None:
    """The features `names` of all purchases of the split, (P, F); those of a last review are unknown.

    None without names. Of the features, an item head can be combined with ratings only.
    """
    if not names:
        return None
    rows = outputs.rows(outputs.dataset_files(run, split), purchase_columns("review.rating"))
    by_user = (interaction_features(row["purchase_history"], names, withheld=True) for row in rows)
    return np.concatenate([np.array(features, np.float32).reshape(-1, len(names)) for features in by_user])
