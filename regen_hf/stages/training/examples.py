"""Training examples: a prompt with a history, followed by the narrative. They are tokenized when a batch is read.

    <folder>/users.arrow    the columns of the users that the examples consist of
    <folder>/index.arrow    one row per example: whose narrative, of which task, with whose history

Both files are memory-mapped, so that a million users need neither memory nor time before the first step.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from accelerate import PartialState
from datasets import Dataset
from numpy.typing import NDArray

from ... import outputs
from ...errors import InputError
from ...model.critiques import MAX_CRITIQUE
from ...model.interactions import interaction_features
from ...model.processing_regen import RegenProcessor
from ...schema import CRITIQUE, TASKS, purchase_columns, text_columns
from ...vectors.histories import Histories
from ...vectors.text_history import fit_text
from .settings import TrainingConfig

INDEX = pa.schema(
    [
        ("user", pa.int32()),  # row of the user whose narrative is learnt
        ("task", pa.int8()),  # position in the setting `tasks`, -1 for a history without a narrative
        ("row", pa.int32()),  # row of the user whose history is shown, -1 for none
        ("latest", pa.int16()),  # number of the latest purchases that are shown, of those that fit
        ("critique", pa.int8()),  # NONE, or the critique of the user is shown, about a purchase or about an item shown
        ("length", pa.int32()),  # estimated tokens; the trainer groups the examples of a step by it
    ]
)
NONE, OF_PURCHASE, OF_SHOWN, OF_EARLIER = range(4)
"""Values of `critique` in `INDEX`, each one the number of last purchases that are shown without their reviews: no
critique; one of the purchase before the last; of the same item, shown as one that was recommended and not bought; or of
the same item, shown one turn earlier: it is swapped with the one before, of which nothing is said."""
CRITIQUE_REPEATS = 9
"""Examples without a narrative per critique, for the item head: few of the purchases that a step predicts have a
critique, and without the repeats the model ignores it (`without repeats` in benchmarks/results/critiques.json)."""
CRITIQUED = "product_endorsement"
"""The task in whose prompt a critique is shown: it is written before the item is bought."""
BYTES_PER_TOKEN = 4
TOKENS_PER_PURCHASE = {"text": 100}
"""For the estimates in `INDEX`, by history; a soft token is one token."""
BLOCK = 10_000
"""Users that are read at once."""
SAMPLE = 256
"""Examples that are tokenized before the training, to report what does not fit into the window."""


@dataclasses.dataclass
class Examples:
    """The training examples of one split.

    Args:
        rows: the index, with the columns of `INDEX`.
        users: the columns of the users that the examples consist of.
        histories: vectors of the users' histories.
        window: maximum tokens of an example, None for no limit.
    """

    rows: Dataset
    users: Dataset
    histories: Histories
    processor: RegenProcessor
    config: TrainingConfig
    window: int | None = None
    prompts: dict[tuple[int, str], list[int]] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls,
        run: Path,
        split: str,
        processor: RegenProcessor,
        folder: Path,
        config: TrainingConfig,
        limit: int | None = None,
        critiques: bool = True,
    ) -> Examples:
        """The examples of `split`, or of its first `limit` users; their files in `folder` are reused.

        Without `critiques`, none shows one.

        Raises:
            InputError: the split has no narrative.
        """
        users, index = folder / "users.arrow", folder / "index.arrow"
        histories, window = Histories.of(run, split), window_of(processor)
        with PartialState().main_process_first():  # the others find the files
            if index.exists() and Dataset.from_file(str(index)).column_names != INDEX.names:  # of an earlier version
                index.unlink()
                users.unlink(missing_ok=True)
            if not users.exists():
                folder.mkdir(parents=True, exist_ok=True)
                copy_columns(outputs.dataset_files(run, split), columns_of(config), limit, users)
            if not index.exists():
                lengths = np.minimum(np.diff(histories.store.offsets), processor.max_history)
                write_stream(index, INDEX, index_of(Dataset.from_file(str(users)), lengths, config, window, critiques))
        rows, narratives = Dataset.from_file(str(index)), Dataset.from_file(str(users))
        examples = cls(rows, narratives, histories, processor, config, window)
        if not len(examples.rows):
            raise InputError(
                f"The {split} split has no narrative to learn from. Run the `narratives` stage on more users, or set "
                "less strict filters (dataset.min_score, dataset.drop_failed)."
                f"{outputs.preview(run)}"
            )
        return examples

    @property
    def critiques(self) -> int:
        """The number of examples that show a critique."""
        shown: int = pc.sum(pc.greater(self.rows.data.column("critique"), NONE)).as_py() or 0
        return shown

    def spread(self, number: int, among: NDArray[np.int64] | None = None) -> list[dict[str, Any]]:
        """Rows of at most `number` examples, spread evenly over those with the indices `among`, or over all."""
        total = len(self.rows) if among is None else len(among)
        chosen = np.unique(np.linspace(0, total - 1, min(number, total)).astype(int))
        return self.rows.__getitems__((chosen if among is None else among[chosen]).tolist())

    def tokenized(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The examples of `rows` of the index, for the collator, with the loss on the completion and its end token.

        A history that does not fit into the window beside prompt and completion keeps its latest purchases. An example
        that does not fit without a history has no tokens to learn.

        Returns:
            A mapping for each row: `input_ids`, `labels`, `kept` (the number of purchases in the prompt), `row` (the
            user's row, -1 without soft tokens), `withheld` (the number of last reviews that are not shown),
            `predicted` (the number of the last purchases that the item head learns to predict), `swapped` (whether the
            last but two and the last but one are), and `features` (a list for each soft token).
        """
        reads_history = self.config.history == "text" or bool(self.config.interaction_features)
        numbers = {row["user"] for row in rows}
        if reads_history:
            numbers |= {row["row"] for row in rows if row["row"] >= 0}
        order = sorted(numbers)
        users = dict(zip(order, self.users.__getitems__(order), strict=True))
        examples = []
        for row in rows:
            history = users[row["row"]]["purchase_history"] if reads_history and row["row"] >= 0 else []
            examples.append(self._tokenized(row, users[row["user"]], history))
        return examples

    def _tokenized(self, row: dict[str, Any], user: dict[str, Any], history: list[dict[str, Any]]) -> dict[str, Any]:
        """One example; `history` is empty unless its texts or features are needed."""
        critiques: tuple[str | None, ...] = ()
        if row["critique"]:
            critiques = ((CRITIQUE.text(user) or "")[:MAX_CRITIQUE], *[None] * (row["critique"] == OF_EARLIER))
        if row["task"] < 0:
            name, completion = None, []
            latest = min(row["latest"], self.purchases(row["row"]))
            kept, prompt = self.processor.fit(latest, prompt="", max_length=self.window, critiques=critiques)
        else:
            name = self.config.tasks[row["task"]]
            completion = self.processor.tokenize_completion(TASKS[name].text(user) or "")
            room = None if self.window is None else self.window - len(completion)
            kept, prompt = 0, self._prompt(0, name)
            if room is not None and room < len(prompt):
                completion = []
            elif self.config.history == "text":
                kept, prompt = fit_text(self.processor, history, name, room)
            elif row["row"] >= 0:
                kept = self.purchases(row["row"])
                if critiques:
                    prompt = self.processor.tokenize_prompt(kept, name, critiques=critiques)
                else:
                    prompt = self._prompt(kept, name)
                if room is not None and len(prompt) > room:
                    kept, prompt = self.processor.fit(kept, task=name, max_length=room, critiques=critiques)
        withheld = int(name in self.processor.metadata_only_tasks)
        if critiques:  # about the next item, whose review nobody knows
            withheld = row["critique"]
        soft = 0 if self.config.history == "text" else kept
        shown = history[len(history) - soft :] if history else []
        swapped = row["critique"] == OF_EARLIER and soft > 2
        if swapped and shown:
            shown = [*shown[:-3], shown[-2], shown[-3], shown[-1]]
        return {
            "input_ids": prompt + completion,
            "labels": [-100] * len(prompt) + completion,
            "row": row["row"] if soft else -1,
            "withheld": withheld,
            "swapped": swapped,
            "predicted": 1 if critiques else soft,  # the others are predicted in the example without the critique
            "kept": kept,
            "features": interaction_features(shown, self.config.interaction_features, withheld),
        }

    def purchases(self, row: int) -> int:
        """The number of purchases of a user, at most `max_history`."""
        offsets = self.histories.store.offsets
        return min(int(offsets[row + 1] - offsets[row]), self.processor.max_history)

    def _prompt(self, n_items: int, task: str) -> list[int]:
        """The token ids of a prompt; there are few different ones."""
        key = n_items, task
        if key not in self.prompts:
            self.prompts[key] = self.processor.tokenize_prompt(n_items, task=task)
        return self.prompts[key]

    def check_window(self) -> None:
        """Log a warning, in the first process, if some of a sample of the examples do not fit into the window.

        Raises:
            InputError: none of the sample fits.
        """
        if not self.config.tasks:
            return  # there is always room for a purchase
        rows = self.spread(SAMPLE, np.flatnonzero(self.rows.data.column("task").to_numpy() >= 0))
        examples = self.tokenized(rows)
        fit = [learns(example) for example in examples]
        if not any(fit):
            raise InputError(
                f"The dataset has no narrative to learn from that fits into the model's window of {self.window} tokens "
                f"({len(rows)} were tried). Name a backbone with a longer window."
            )
        if not PartialState().is_main_process:
            return
        shortened = sum(
            fits and row["row"] >= 0 and example["kept"] < self.purchases(row["row"])
            for row, example, fits in zip(rows, examples, fit, strict=True)
        )
        if shortened:
            logging.getLogger(__name__).warning(
                "%d of %d sampled examples keep only the latest purchases of their history, as many as fit into the "
                "model's window of %s tokens.",
                shortened,
                len(rows),
                self.window,
            )
        if not all(fit):
            logging.getLogger(__name__).warning(
                "%d of %d sampled examples are longer than the model's window of %s tokens. Such examples are left "
                "out of the loss.",
                len(rows) - sum(fit),
                len(rows),
                self.window,
            )


def learns(example: dict[str, Any]) -> bool:
    """Whether a tokenized example has tokens to learn: it fits into the window."""
    return example["labels"][-1] >= 0


def window_of(processor: RegenProcessor) -> int | None:
    """The window of the backbone in tokens, None for no limit."""
    length = processor.tokenizer.model_max_length
    return length if length < 1_000_000 else None  # transformers' value for "not set" is above it


def shows_critiques(config: TrainingConfig) -> bool:
    """Whether critiques are shown: they stand among soft tokens, before an item that is endorsed or predicted."""
    return config.history == "own" and (CRITIQUED in config.tasks or config.next_item_weight > 0)


def columns_of(config: TrainingConfig) -> list[str]:
    """The columns of a row that the examples of `config` consist of."""
    if config.history == "text":
        return text_columns(config.tasks, "purchase_history")
    fields = [TASKS[name].field for name in config.tasks]
    columns = [str(field[0]) for field in fields if not isinstance(field[1], int)]
    columns += purchase_columns(*(".".join(map(str, field[2:])) for field in fields if isinstance(field[1], int)))
    if shows_critiques(config):
        columns += ["reviewer_id", CRITIQUE.sql]  # a dataset without critiques lacks the second
    if config.interaction_features:
        columns += purchase_columns("review.rating", "review.unix_time")
    return list(dict.fromkeys(columns or ["reviewer_id"]))


def copy_columns(files: list[Path], columns: list[str], limit: int | None, target: Path) -> None:
    """Copy `columns` of the first `limit` rows of parquet `files` to `target`; all rows without a limit."""

    def batches() -> Iterator[pa.RecordBatch]:
        left = outputs.count(files) if limit is None else limit
        for file in files:
            with pq.ParquetFile(file) as opened:
                for batch in opened.iter_batches(batch_size=min(BLOCK, max(1, left)), columns=columns):
                    yield batch.slice(0, left)
                    left -= min(left, len(batch))
                    if not left:
                        return

    with pq.ParquetFile(files[0]) as first:
        schema = first.read_row_groups([], columns=columns).schema
    write_stream(target, schema, batches())


def write_stream(target: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write `batches` to `target` in Arrow's stream format, which can be memory-mapped."""
    with (
        outputs.replacing(target) as new,
        pa.OSFile(str(new), "wb") as file,
        pa.ipc.new_stream(file, schema.remove_metadata()) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)


def index_of(
    users: Dataset, lengths: NDArray[np.int64], config: TrainingConfig, window: int | None, critiques: bool = True
) -> Iterator[pa.RecordBatch]:
    """The index of the examples of `users`, in batches.

    Every user gives one example per task, repeated by the weight of the task; the fraction of a weight is a
    probability. Where a user has a critique, an example in which it can be shown has a second one with it, so that the
    model reads it and needs none. With an item head there are CRITIQUE_REPEATS further ones without a narrative, with
    all purchases, the latest half of them, a quarter, … What is drawn for an example depends only on the seed, the
    user's row and the task.

    `lengths` are the purchases of each user that the model sees, shape (U,).
    """
    generators = {
        name: np.random.default_rng([config.seed, zlib.crc32(name.encode())]) for name in (*config.tasks, CRITIQUE.name)
    }
    critiques = critiques and shows_critiques(config)
    purchase = TOKENS_PER_PURCHASE.get(config.history, 1)
    first = 0
    for table in users.with_format("arrow").iter(BLOCK):
        user = np.arange(first, first + len(table))
        first += len(table)
        # The rows are in the order of a hash, so the next user is a random one.
        source = (user + 1) % len(users) if config.history == "shuffled" else user
        no_critique = np.full(len(user), NONE)
        bought = lengths[user]
        texts = np.asarray(pc.fill_null(pc.binary_length(CRITIQUE.column(table)), 0))  # in bytes
        texts = np.where((bought > 1) & critiques, texts, 0)
        no_task = np.full(len(user), -1)
        examples = []
        if not config.tasks:
            examples.append((bought > 0, user, no_task, user, bought, no_critique, bought))
        for repeat in range(CRITIQUE_REPEATS if config.next_item_weight else 0):
            about = OF_PURCHASE + repeat % np.where(bought > 2, 3, 2)
            latest = np.maximum(np.minimum(bought, 3), bought >> repeat // 3)
            examples.append((texts > 0, user, no_task, user, latest, about, latest + texts // BYTES_PER_TOKEN))
        for task, name in enumerate(config.tasks):
            weight = config.task_weights.get(name, 1.0)
            draws = generators[name].random((len(user), 1 + math.ceil(weight)))
            size = np.asarray(pc.fill_null(pc.binary_length(TASKS[name].column(table)), 0))  # in bytes
            times = int(weight) + (draws[:, 0] < weight - int(weight))
            for repeat in range(math.ceil(weight)):
                hidden = (draws[:, 1 + repeat] < config.history_dropout) | (config.history == "empty")
                row = np.where(hidden | (lengths[source] == 0), -1, source)
                length = size // BYTES_PER_TOKEN + np.where(row < 0, 0, purchase * lengths[source])
                chosen = (size > 0) & (repeat < times)
                number = np.full(len(user), task)
                shown = lengths[source]
                examples.append((chosen, user, number, row, shown, no_critique, np.minimum(length, window or length)))
                if name == CRITIQUED and critiques:
                    length = length + texts // BYTES_PER_TOKEN
                    about = generators[CRITIQUE.name].choice([OF_PURCHASE, OF_SHOWN], len(user))
                    chosen = chosen & (texts > 0) & (row >= 0)
                    examples.append((chosen, user, number, row, shown, about, np.minimum(length, window or length)))
        chosen, *columns = (np.stack(part, axis=1) for part in zip(*examples, strict=True))  # (U, examples of a user)
        yield pa.record_batch(
            [pa.array(column[chosen], field.type) for column, field in zip(columns, INDEX, strict=True)], schema=INDEX
        )
