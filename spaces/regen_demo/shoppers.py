"""Shoppers and catalogue of the dataset, as the Space reads them: a first part of each split, and every item."""

import random
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from datasets import load_dataset

PER_SPLIT = 500
FOUND = 8


class Shoppers:
    """What the Space shows of a dataset.

    Args:
        config: of the Space: `dataset`, `dataset_config`, `dataset_revision`, `split`, `splits`, `figures`.
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

    def some(self) -> int:
        """The number of some shopper of the Space's split."""
        return random.randrange(len(self.rows(self.split)))  # noqa: S311 (nothing to guess here)

    @cached_property
    def _by_asin(self) -> dict[str, dict[str, Any]]:
        return {item["asin"]: item for item in self.items}

    @cached_property
    def _searched(self) -> list[str]:
        return [f"{item['title'] or ''} {item['category'] or ''}".casefold() for item in self.items]

    def item(self, asin: str) -> dict[str, Any]:
        """The item of the catalogue.

        Raises:
            KeyError: there is none.
        """
        return self._by_asin[asin]

    def search(self, words: str) -> list[dict[str, Any]]:
        """The first items whose title or category holds each of the words; those that hold them in the title first."""
        wanted = words.casefold().split()
        hits = [place for place, text in enumerate(self._searched) if all(word in text for word in wanted)]
        in_title = [place for place in hits if all(w in (self.items[place]["title"] or "").casefold() for w in wanted)]
        first = set(in_title)
        return [self.items[place] for place in [*in_title, *(place for place in hits if place not in first)][:FOUND]]

    def find(self, split: str, stars: int, richness: int) -> list[tuple[str, int]]:
        """Shoppers as (split, number).

        Args:
            split: one of the splits, or "all".
            stars: those of the last purchase, 0 for any.
            richness: the least score of how rich the history is, 0 for any.
        """
        found = []
        for name in self.splits if split == "all" else [split]:
            for number, row in enumerate(self.rows(name)):
                last = (row["purchase_history"] or [{}])[-1]
                rated = ((row["metadata"] or {}).get("example") or {}).get("richness") or 0
                if stars in (0, (last.get("review") or {}).get("rating")) and rated >= richness:
                    found.append((name, number))
        return found

    @cached_property
    def figures(self) -> list[Path]:
        """The figures of the dataset: those that the config names, or those in its repository."""
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
