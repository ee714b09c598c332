"""The items of the processor: their vectors, next items by ALS, and new items.

Shapes: N purchases, I items of the table, d the width of the CF vectors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from .fold_in import confidences, fold_in_items, fold_in_user
from .histories import read_histories
from .interactions import interaction_text

logger = logging.getLogger(__name__)


class ItemTable:
    """The methods of a processor that concern its items: a base class of [`RegenProcessor`]."""

    cf_asins: list[str]
    cf_factors: Any
    cf_user_gram: Any
    cf_is_als: bool
    cf_alpha: float
    cf_regularization: float
    item_titles: list[str | None]
    item_content: Any
    content_encoder: Any
    _cf_rows: dict[str, int]
    _warned_of_cold_items: bool
    _content_vectors: Callable[[list[str]], np.ndarray | None]

    def unknown_items(self, history: Any) -> list[str | None]:
        """The items of one history or several without a CF vector, once per purchase; see `fold_in`."""
        asins = [purchase["item"]["asin"] for row in read_histories(history)[0] for purchase in row]
        return [] if self.cf_factors is None else [asin for asin in asins if asin not in self._cf_rows]

    def fold_in(self, histories: Any) -> list[str]:
        """Add CF vectors for the new items of `histories`, by one closed-form step of ALS and without training.

        Each history should hold new items and items that have a vector; more histories give better vectors. Existing
        vectors do not change. Save the processor to keep the new ones.

        Args:
            histories: as in `__call__`; all purchases count, not only the latest `max_history`.

        Returns:
            The items with a new vector. An item that was bought only with other unknown items gets none.

        Raises:
            ValueError: a history is malformed, this processor has no `cf_user_gram`, or its CF vectors are not of ALS.
        """
        self._check_als("fold_in", "Fit that recommender again with the new items, and train a model on its vectors.")
        if self.cf_factors is None or self.cf_user_gram is None:
            raise ValueError(
                "cf_user_gram is None, expected the sum of x x' over the user vectors of ALS, which new items need: "
                "pass it to RegenProcessor with the CF vectors."
            )
        vectors = fold_in_items(
            read_histories(histories)[0],
            self._cf_rows,
            self.cf_factors,
            self.cf_user_gram,
            self.cf_alpha,
            self.cf_regularization,
        )
        items = {one["item"]["asin"]: one["item"] for row in read_histories(histories)[0] for one in row}
        known = set(self.cf_asins)
        self._append([items[asin] for asin in vectors if asin not in known])
        rows = {asin: row for row, asin in enumerate(self.cf_asins)}
        self.cf_factors = self.cf_factors.copy()
        for asin, vector in vectors.items():
            self.cf_factors[rows[asin]] = vector
        self._find_rows()
        return list(vectors)

    def recommend(self, history: Any, n: int = 10) -> Any:
        """The next items for a customer, known or new, by ALS without the language model.

        The customer's vector is one closed-form step of ALS from the items of the history that have a vector; the score
        of an item is its product with that vector. All purchases count, not only the latest `max_history`.

        >>> processor.recommend(history, n=3)  # doctest: +SKIP
        [('B01', 0.93), ('B07', 0.71), ('B04', 0.70)]

        Args:
            history: one history or several, as in `__call__`.
            n: maximum number of items.

        Returns:
            `(asin, score)` pairs, the best first, without the items of the history; one list for a history, a list of
            lists for several. Empty where no item of the history has a vector.

        Raises:
            ValueError: a history is malformed, `n` is below 1, or this processor has no CF vectors or not those of ALS.
        """
        self._check_als("recommend", "Use that recommender, or, with an item head, recommend of the pipeline.")
        if self.cf_factors is None:
            raise ValueError(
                "This processor has no CF vectors, expected cf_asins and cf_factors: recommend needs them."
            )
        if not isinstance(n, int | np.integer) or n < 1:
            raise ValueError(f"n is {n!r}, expected a number of items of at least 1.")
        histories, single = read_histories(history)
        item_rows, factors = self._cf_rows, self.cf_factors
        asins, rows = list(item_rows), np.array(list(item_rows.values()), dtype=np.int64)
        gram = (factors.T @ factors).astype(np.float64)  # (d, d)
        best: list[list[tuple[str, float]]] = []
        for purchases in histories:
            weight = confidences(purchases, self.cf_alpha)
            user = fold_in_user(weight, item_rows, factors, gram, self.cf_regularization)  # (d,)
            if user is None:
                best.append([])
                continue
            scores = factors[rows] @ user  # (items with a vector,)
            order = (int(row) for row in np.argsort(-scores, kind="stable") if asins[row] not in weight)
            best.append([(asins[row], float(scores[row])) for row in islice(order, n)])
        return best[0] if single else best

    def catalogue(self) -> dict[str, Any]:
        """The arguments of `model.set_catalogue`: `item_cf` (I, cf_dim) and `item_content` (I, content_dim).

        Raises:
            ValueError: this processor has no items, or not the content vectors that the model reads.
        """
        import torch

        if not self.cf_asins:
            raise ValueError("This processor has no items to rank, expected a catalogue: add items with add_items.")
        if self.content_encoder is not None and self.item_content is None:
            raise ValueError("item_content is None, expected the content vectors of the items: pass it with cf_asins.")
        arrays = {"item_cf": self.cf_factors, "item_content": self.item_content}
        return {name: None if x is None else torch.from_numpy(x.astype(np.float32)) for name, x in arrays.items()}

    def add_items(self, items: Sequence[Mapping[str, Any]]) -> list[str]:
        """Add items to the catalogue, which the item head can rank at once by their text.

        They are cold until `fold_in` gives them a CF vector. An item that is in the catalogue gets the new text. Save
        the processor to keep the items.

        Args:
            items: each with asin, title, category, description and price; only `asin` is required.

        Returns:
            The asins of the items that are new.

        Raises:
            ValueError: an item has no asin, or this processor has no catalogue.
        """
        if self.cf_factors is None:
            raise ValueError("This processor has no catalogue, expected cf_asins and cf_factors: pass them first.")
        if self.item_content is not None and self.content_encoder is None:
            raise ValueError("content_encoder is None, expected the encoder of the content vectors: pass it first.")
        if not items:
            return []
        purchases = [{"item": item} for item in items]
        given = {purchase["item"].get("asin"): purchase["item"] for purchase in read_histories(purchases)[0][0]}
        if None in given:
            raise ValueError(f"An item of {len(items)} has no asin, expected one for each.")
        rows = {asin: row for row, asin in enumerate(self.cf_asins)}
        known = {rows[asin]: item for asin, item in given.items() if asin in rows}
        new = [asin for asin in given if asin not in rows]
        vectors = self._metadata_vectors(list(known.values()))
        self._append([given[asin] for asin in new])
        if self.item_titles:
            self.item_titles = [
                known[row].get("title") if row in known else title for row, title in enumerate(self.item_titles)
            ]
        if known and vectors is not None:
            self.item_content = self.item_content.copy()  # a new array, by which a pipeline notices the change
            self.item_content[list(known)] = vectors
        return new

    def remove_items(self, asins: Sequence[str]) -> None:
        """Remove items from the catalogue, with their CF vectors.

        Raises:
            ValueError: an item is not in the catalogue.
        """
        removed = {str(asin) for asin in ([asins] if isinstance(asins, str) else asins)}
        if unknown := sorted(removed - set(self.cf_asins)):
            raise ValueError(f"asins has {unknown[0]!r}, expected items of the catalogue.")
        kept = [row for row, asin in enumerate(self.cf_asins) if asin not in removed]
        self.cf_asins = [self.cf_asins[row] for row in kept]
        self.cf_factors = self.cf_factors[kept]
        if self.item_titles:
            self.item_titles = [self.item_titles[row] for row in kept]
        if self.item_content is not None:
            self.item_content = self.item_content[kept]
        self._find_rows()

    def _check_als(self, name: str, instead: str) -> None:
        """Check that the CF vectors are those of ALS.

        Raises:
            ValueError: they are those of another recommender.
        """
        if not self.cf_is_als:
            raise ValueError(
                f"{name} takes a step of ALS, but the CF vectors of this model are those of another recommender "
                f"(cf_is_als is False). {instead}"
            )

    def _check_table(self) -> None:
        """Check the vectors of the items and the settings of ALS.

        Raises:
            ValueError: they do not match each other, or a value is NaN, infinite or negative.
        """
        asins, factors, gram = self.cf_asins, self.cf_factors, self.cf_user_gram
        if factors is None:
            if asins:
                raise ValueError(f"cf_asins has {len(asins)} items, but cf_factors is None: pass both.")
        elif factors.ndim != 2 or len(factors) != len(asins):
            raise ValueError(
                f"cf_factors has the shape {factors.shape}, expected ({len(asins)}, cf_dim), one row per item of "
                "cf_asins."
            )
        elif gram is not None and gram.shape != (factors.shape[1],) * 2:
            raise ValueError(
                f"cf_user_gram has the shape {gram.shape}, expected (cf_dim, cf_dim) as in cf_factors {factors.shape}."
            )
        for name, values in (("item_titles", self.item_titles), ("item_content", self.item_content)):
            if values is not None and len(values) not in (0, len(asins)):
                raise ValueError(f"{name} has {len(values)} rows, expected {len(asins)}, one per item of cf_asins.")
        arrays = {"cf_factors": factors, "cf_user_gram": gram, "item_content": self.item_content}
        for name, values in arrays.items():
            if values is not None and not np.isfinite(values).all():
                raise ValueError(f"{name} contains NaN or infinity, expected finite values: fit the CF vectors again.")
        for name, value in (("cf_alpha", self.cf_alpha), ("cf_regularization", self.cf_regularization)):
            if not 0 <= value < np.inf:
                raise ValueError(f"{name} is {value}, expected a finite number of at least 0, as in the fit of ALS.")
        if len(set(asins)) != len(asins):
            raise ValueError("cf_asins contains an item twice, expected each item once.")

    def _cf_vectors(self, purchases: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
        """v_i of each purchase, zero for a cold item, (N, d); None for a processor without CF vectors."""
        if self.cf_factors is None:
            return None
        rows = np.array([self._cf_rows.get(purchase["item"]["asin"], -1) for purchase in purchases], dtype=np.int64)
        vectors = np.zeros((len(rows), self.cf_factors.shape[1]), dtype=np.float32)
        known = rows >= 0
        vectors[known] = self.cf_factors[rows[known]]
        if not known.all() and not self._warned_of_cold_items:
            self._warned_of_cold_items = True
            logger.warning(
                "%d of %d purchases are of items without a CF vector: the model reads only their text. This warning is "
                "shown once.",
                int((~known).sum()),
                len(rows),
            )
        return vectors

    def _append(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Append items without a CF vector to the table."""
        vectors = self._metadata_vectors(items)  # first, because it can fail
        if self.item_titles or self.item_content is not None:
            titles = self.item_titles or [None] * len(self.cf_asins)
            self.item_titles = [*titles, *(item.get("title") for item in items)]
        self.cf_asins = [*self.cf_asins, *(str(item["asin"]) for item in items)]
        cold = np.zeros((len(items), self.cf_factors.shape[1]), np.float32)
        self.cf_factors = np.vstack([self.cf_factors, cold])
        if vectors is not None:
            self.item_content = np.vstack([self.item_content, vectors])

    def _metadata_vectors(self, items: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
        """Content vectors of the metadata of `items`, (N, content_dim); None where the table has none."""
        if self.item_content is None or not items:
            return None
        vectors = self._content_vectors([interaction_text(item, None) for item in items])
        return None if vectors is None else vectors.astype(np.float16)

    def _find_rows(self) -> None:
        """Find the rows of the items with a CF vector; a row of zeros is an item that no train user bought."""
        self._cf_rows = {asin: row for row, asin in enumerate(self.cf_asins) if self.cf_factors[row].any()}


__all__ = ["ItemTable"]
