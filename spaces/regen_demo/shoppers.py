"""The shoppers and the catalogue of the dataset: the first rows of each split, and every item."""

import random
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from datasets import load_dataset

PER_SPLIT = 500
"""Rows of a split that are loaded."""
MAX_HITS = 8
"""Items that a search returns."""


class Shoppers:
    """The rows, items and figures of a dataset.

    Args:
        config: the config.json of the Space.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._loading = Lock()
        self.split: str = config["split"]
        self.splits: list[str] = config["splits"]
        self.rows(self.split)
        self.items: list[dict[str, Any]] = self._load(config["dataset_config"] + "-items", "train").to_list()

    def rows(self, split: str) -> list[dict[str, Any]]:
        """The first rows of a split."""
        with self._loading:
            if split not in self._rows:
                rows = self._load(self._config["dataset_config"], split, streaming=True)
                self._rows[split] = list(rows.take(PER_SPLIT))
            return self._rows[split]

    def _load(self, name: str, split: str, **arguments: Any) -> Any:
        return load_dataset(
            self._config["dataset"], name, split=split, revision=self._config["dataset_revision"], **arguments
        )

    def random_number(self) -> int:
        """The number of a random shopper of the Space's split."""
        return random.randrange(len(self.rows(self.split)))  # noqa: S311 (no secret)

    @cached_property
    def _by_asin(self) -> dict[str, dict[str, Any]]:
        return {item["asin"]: item for item in self.items}

    @cached_property
    def _searched(self) -> list[str]:
        return [f"{item['title'] or ''} {item['category'] or ''}".casefold() for item in self.items]

    def item(self, asin: str) -> dict[str, Any]:
        """The fields of an item of the catalogue, empty for an unknown asin."""
        return self._by_asin.get(asin, {})

    def search(self, words: str) -> list[dict[str, Any]]:
        """The first items with each of the words in their title or category; matches in the title come first."""
        wanted = words.casefold().split()

        def in_title(item: dict[str, Any]) -> bool:
            return all(word in (item["title"] or "").casefold() for word in wanted)

        texts = zip(self.items, self._searched, strict=True)
        hits = [item for item, text in texts if all(word in text for word in wanted)]
        return sorted(hits, key=in_title, reverse=True)[:MAX_HITS]

    def filter(self, split: str, stars: int, richness: int) -> list[tuple[str, int]]:
        """Shoppers that match the filters, as (split, number).

        Args:
            split: one of the splits, or "all".
            stars: rating of the last purchase, 0 for any.
            richness: least score of the richness of the history, 0 for any.
        """
        matches = []
        for name in self.splits if split == "all" else [split]:
            for number, row in enumerate(self.rows(name)):
                last = (row["purchase_history"] or [{}])[-1]
                rated = ((row["metadata"] or {}).get("example") or {}).get("richness") or 0
                if stars in (0, (last.get("review") or {}).get("rating")) and rated >= richness:
                    matches.append((name, number))
        return matches

    @cached_property
    def figures(self) -> list[Path]:
        """The figures of the dataset: the paths in the config, or those in its repository."""
        named = self._config.get("figures")
        if named is not None:
            return [Path(path).resolve() for path in named]
        from huggingface_hub import snapshot_download

        pattern = f"figures/{self._config['dataset_config']}/*.png"
        folder = snapshot_download(
            self._config["dataset"],
            repo_type="dataset",
            revision=self._config["dataset_revision"],
            allow_patterns=pattern,
        )
        return sorted(Path(folder).glob(pattern))
