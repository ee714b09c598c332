"""What the processor does with its CF item table: vectors for purchases and for new items, and the next items.

Shapes: N purchases, I items of the table, d the width of the CF vectors.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from .fold_in import confidences, fold_in_items, fold_in_user
from .histories import read_histories

logger = logging.getLogger(__name__)


class ItemVectors:
    """Methods of [`RegenProcessor`] on its CF vectors."""

    def unknown_items(self: Any, history: Any) -> list[str | None]:
        """The items of one history or several that have no CF vector, once per purchase; `fold_in` gives them one."""
        if self.cf_factors is None:
            return []
        asins = [purchase["item"].get("asin") for row in read_histories(history)[0] for purchase in row]
        return [asin for asin in asins if asin not in self._cf_rows]

    def fold_in(self: Any, histories: Any) -> list[str]:
        """Give CF vectors to the new items of `histories`, with no training: one closed step of ALS for each.

        The histories are of customers who bought the new items among others that have a vector, the more the better.
        Items that have a vector keep it, and so do all customers: to the model they are their histories. Save the
        processor to keep the new vectors.

        Args:
            histories: as in `__call__`; every purchase counts, not the latest `max_history` alone.

        Returns:
            The items that have a vector now and had none before. An item that was bought with unknown items alone is
            not among them.

        Raises:
            ValueError: a history is malformed, or this processor has no CF vectors to start from.
        """
        if self.cf_factors is None or self.cf_user_gram is None:
            raise ValueError(
                "This processor holds no cf_user_gram, which new items need: run `regen embeddings` and `regen train` "
                "with this version, or give RegenProcessor the sum of x x' over the user vectors of ALS."
            )
        found = fold_in_items(
            read_histories(histories)[0],
            self._cf_rows,
            self.cf_factors,
            self.cf_user_gram,
            self.cf_alpha,
            self.cf_regularization,
        )
        places = {asin: row for row, asin in enumerate(self.cf_asins)}
        added = [asin for asin in found if asin not in places]
        self.cf_asins += added
        self.cf_factors = np.vstack([self.cf_factors, np.zeros((len(added), self.cf_factors.shape[1]), np.float32)])
        places |= {asin: row for row, asin in enumerate(added, len(places))}
        for asin, vector in found.items():
            self.cf_factors[places[asin]] = vector
            self._cf_rows[asin] = places[asin]
        return list(found)

    def recommend(self: Any, history: Any, n: int = 10) -> Any:
        """The next items for a customer, by ALS alone: no model is asked, and no customer has to be known.

        The customer's vector is one closed step of ALS from the items of the history that have a vector; the score of
        an item is its product with that vector. Every purchase counts, not the latest `max_history` alone.

        >>> processor.recommend(history, n=3)  # doctest: +SKIP
        [('B01', 0.93), ('B07', 0.71), ('B04', 0.70)]

        Args:
            history: one history or several, as in `__call__`.
            n: items at most.

        Returns:
            `(asin, score)` pairs, the best first, none that is in the history; a list of them for one history, a list
            of lists for several. Empty where no item of the history has a vector.

        Raises:
            ValueError: a history is malformed, `n` is below 1, or this processor has no CF vectors.
        """
        if self.cf_factors is None:
            raise ValueError("This processor holds no CF vectors, so it cannot tell the next items.")
        if n < 1:
            raise ValueError(f"n was given {n}, expected a number of items of at least 1.")
        histories, alone = read_histories(history)
        asins, rows = list(self._cf_rows), np.array(list(self._cf_rows.values()), dtype=np.int64)
        gram = (self.cf_factors.T @ self.cf_factors).astype(np.float64)  # (d, d)
        best: list[list[tuple[str, float]]] = []
        for purchases in histories:
            weight = confidences(purchases, self.cf_alpha)
            user = fold_in_user(weight, self._cf_rows, self.cf_factors, gram, self.cf_regularization)  # (d,)
            if user is None:
                best.append([])
                continue
            scores = self.cf_factors[rows] @ user  # (items with a vector,)
            order = (int(row) for row in np.argsort(-scores, kind="stable") if asins[row] not in weight)
            best.append([(asins[row], float(scores[row])) for row in islice(order, n)])
        return best[0] if alone else best

    def _cf_vectors(self: Any, purchases: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
        """Raw v_i of each purchase, zero for a cold item: (N, cf_dim)."""
        if self.cf_factors is None:
            return None
        rows = [self._cf_rows.get(purchase["item"].get("asin"), -1) for purchase in purchases]
        vectors = np.zeros((len(rows), self.cf_factors.shape[1]), dtype=np.float32)
        known = np.array(rows, dtype=np.int64) >= 0
        vectors[known] = self.cf_factors[np.array(rows, dtype=np.int64)[known]]
        if not known.all() and not self._told_of_cold_items:
            self._told_of_cold_items = True
            logger.warning(
                "%d of %d purchases are of items without a CF vector: the model sees only their text. Said once.",
                int((~known).sum()),
                len(rows),
            )
        return vectors


__all__ = ["ItemVectors"]
