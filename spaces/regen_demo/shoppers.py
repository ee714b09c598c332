"""The shoppers and the catalogue of the dataset: the first rows of each split, and every item."""

import difflib
import random
from collections import Counter
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from datasets import load_dataset

PER_SPLIT = 500
"""Rows of a split that are loaded."""
MAX_HITS = 8
"""Items or shoppers that a search returns."""
MAX_WORDS = 8
"""Words of a search that count."""


class Words:
    """Texts that are searched by words, also if a word is misspelled.

    Args:
        texts: the texts.
    """

    def __init__(self, texts: list[str]) -> None:
        self._texts = [text.casefold() for text in texts]
        self._vocabulary = sorted({word for text in self._texts for word in text.replace(",", " ").split()})

    def spelled(self, words: str) -> list[str]:
        """The words; one that is in no text is replaced by the most similar one, if there is any."""
        wanted = []
        for word in words.casefold().split()[:MAX_WORDS]:
            known = any(word in text for text in self._texts)
            similar = [] if known else difflib.get_close_matches(word, self._vocabulary, n=1, cutoff=0.7)
            wanted.append(similar[0] if similar else word)
        return wanted

    def with_all(self, wanted: list[str]) -> list[int]:
        """The positions of the texts that contain all words."""
        return [index for index, text in enumerate(self._texts) if all(word in text for word in wanted)]


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

    def item(self, asin: str) -> dict[str, Any]:
        """The fields of an item of the catalogue, empty for an unknown asin."""
        return self._by_asin.get(asin, {})

    @cached_property
    def categories(self) -> list[str]:
        """The most frequent categories of the catalogue."""
        counts = Counter(item["category"] for item in self.items if item["category"])
        return [category for category, _ in counts.most_common(12)]

    @cached_property
    def critiques(self) -> list[str]:
        """Examples of what customers of the dataset say about a purchase that should have been different."""
        last = (row.get("last_purchase") or {} for row in self.rows(self.split))
        said = {each["critique"] for each in last if each.get("critique")}
        return sorted(said, key=lambda text: (len(text), text))[:3]

    @cached_property
    def _catalogue(self) -> "Words":
        return Words([f"{item['title'] or ''} {item['category'] or ''}" for item in self.items])

    @cached_property
    def _baskets(self) -> "Words":
        rows = self.rows(self.split)
        return Words([" ".join(each["item"]["title"] or "" for each in row["purchase_history"]) for row in rows])

    def search(self, words: str) -> list[dict[str, Any]]:
        """The first items with each of the words in their title or category; matches in the title come first."""
        wanted = self._catalogue.spelled(words)

        def in_title(item: dict[str, Any]) -> bool:
            return all(word in (item["title"] or "").casefold() for word in wanted)

        hits = [self.items[index] for index in self._catalogue.with_all(wanted)]
        return sorted(hits, key=in_title, reverse=True)[:MAX_HITS]

    def buyers(self, words: str) -> list[int]:
        """The first shoppers of the Space's split who bought items with each of the words."""
        return self._baskets.with_all(self._baskets.spelled(words))[:MAX_HITS]

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
