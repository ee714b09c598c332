"""The processor of the fused model: maps raw purchase histories to tensors.

It holds the tokenizer, the CF vectors of the items, the sentence encoder (its name, or its folder `content_encoder/`
beside these files), and the prompt of each task.

Shapes: B histories, T tokens, N purchases of the longest history, I items of the catalogue.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import snapshot_download
from safetensors.numpy import load_file, save_file
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import cached_file

from .critiques import by_position, one_list_each, quoted
from .histories import encodable, first_columns, item_ids, one_each, read_histories
from .interactions import interaction_features, interaction_text, without_last_review
from .item_table import ItemTable
from .loading import HUB, check_folder, load_encoder

ITEM_NAMES = "cf_items.json"
ITEM_VECTORS = "cf_items.safetensors"
ENCODER_FOLDER = "content_encoder"

logger = logging.getLogger(__name__)


class RegenProcessor(ItemTable, ProcessorMixin):
    """Maps purchase histories and a task to the inputs of [`RegenForCausalLM`].

    Args:
        tokenizer ([`PreTrainedTokenizerBase`]): `item_token` must be one token of its vocabulary.
        cf_asins (`list[str]`): the ids of the items that have a CF vector; integers become text.
        cf_factors (`numpy.ndarray` of shape (I, cf_dim)): their raw CF vectors, in the same order.
        content_encoder (`str` or `SentenceTransformer`, *optional*):
            Name on the Hub, local folder, or the model itself; a folder or a model is saved with the processor. None
            for a model that reads CF vectors only.
        task_prompts (`dict[str, str]`): the instruction of each task.
        metadata_only_tasks (`list[str]`): tasks whose last review is withheld (section 3.2).
        item_token (`str`, *optional*, defaults to `"<|item|>"`): the placeholder, one per purchase.
        max_history (`int`, *optional*, defaults to 50): maximum length of a history; the latest purchases are used.
        interaction_features (`list` of `"rating"` and `"age"`, *optional*):
            Further features of a purchase that the model reads, as in its configuration.
        cf_user_gram (`numpy.ndarray` of shape (cf_dim, cf_dim), *optional*):
            Sum of x x' over the user vectors of ALS; `fold_in` needs it.
        cf_alpha (`float`, *optional*, defaults to 1.0): a purchase rated r has the ALS confidence 1 + cf_alpha * r.
        cf_regularization (`float`, *optional*, defaults to 0.05): weight of the L2 penalty of ALS.
        item_titles (`list[str]`, *optional*): the titles of the items, in the order of `cf_asins`.
        item_content (`numpy.ndarray` of shape (I, content_dim), *optional*):
            Content vectors of the items' metadata, in the same order; the item head ranks these items.
        reads_critiques (`bool`, *optional*): whether the model learnt from prompts with critiques.
        cf_is_als (`bool`, *optional*, defaults to `True`):
            Whether the CF vectors are those of weighted ALS, which `fold_in` and `recommend` need.

    Raises:
        ValueError: the arguments do not match each other.
    """

    _auto_class = "AutoProcessor"  # saves this file and sets auto_map in processor_config.json

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        cf_asins: Sequence[str] = (),
        cf_factors: np.ndarray | None = None,
        content_encoder: Any = None,
        task_prompts: Mapping[str, str] | None = None,
        metadata_only_tasks: Sequence[str] = (),
        item_token: str = "<|item|>",  # noqa: S107 (a token of text)
        max_history: int = 50,
        interaction_features: Sequence[str] = (),
        cf_user_gram: np.ndarray | None = None,
        cf_alpha: float = 1.0,
        cf_regularization: float = 0.05,
        item_titles: Sequence[str | None] = (),
        item_content: np.ndarray | None = None,
        reads_critiques: bool = False,
        cf_is_als: bool = True,
    ) -> None:
        super().__init__(tokenizer)
        self.cf_asins = item_ids("cf_asins", cf_asins)
        self.cf_factors: Any = None if cf_factors is None else np.ascontiguousarray(cf_factors, dtype=np.float32)
        self.content_encoder = content_encoder
        self.task_prompts = dict(task_prompts or {})
        self.metadata_only_tasks = list(metadata_only_tasks)
        self.item_token = item_token
        self.max_history = max_history
        self.interaction_features = list(interaction_features)
        self.cf_user_gram = None if cf_user_gram is None else np.ascontiguousarray(cf_user_gram, dtype=np.float32)
        self.cf_is_als = cf_is_als
        self.cf_alpha, self.cf_regularization = cf_alpha, cf_regularization
        self.item_titles = list(item_titles)
        self.item_content = None if item_content is None else np.ascontiguousarray(item_content, dtype=np.float16)
        self.reads_critiques = reads_critiques
        self._check_parts()
        self._find_rows()
        self._encoder: Any = None
        self._warned_of_cold_items = False

    @property
    def item_token_id(self) -> int:
        """Id of the placeholder token, as in the model's configuration."""
        return self.tokenizer.convert_tokens_to_ids(self.item_token)

    @property
    def encoder(self) -> Any:
        """The `SentenceTransformer` behind the content vectors, loaded on first use.

        Raises:
            ImportError: sentence-transformers is not installed.
            ValueError: a weight of the encoder is missing.
        """
        if self._encoder is None:
            encoder = self.content_encoder
            self._encoder = load_encoder(encoder) if isinstance(encoder, str) else encoder
        return self._encoder

    def prompt_text(
        self,
        n_items: int,
        task: str | None = None,
        prompt: str | None = None,
        critiques: Sequence[str | None] = (),
    ) -> str:
        """The prompt with `n_items` placeholders.

        Args:
            n_items: number of purchases.
            task: a key of `task_prompts`.
            prompt: an instruction in place of a task.
            critiques: what the customer says about each of the latest purchases before the last one, in order.

        Raises:
            ValueError: the task is unknown, the prompt contains the placeholder, or both or none of them are passed.
        """
        if task is not None and not self.task_prompts:
            raise ValueError(
                f"The task {task!r} was passed, but this model has no tasks: it was trained to rank items only "
                "(training.tasks is empty). Train it with tasks to get texts; recommend without explain needs none."
            )
        if (task is None) == (prompt is None):
            raise ValueError(f"Both or none of task and prompt were passed, expected one. Tasks: {self._tasks}.")
        if prompt is None:
            if task not in self.task_prompts:
                raise ValueError(f"Unknown task {task!r}. Tasks: {self._tasks}.")
            prompt = self.task_prompts[task]
        if self.item_token in prompt:
            raise ValueError(f"The prompt contains {self.item_token!r}, the placeholder of a purchase: remove it.")
        after = {number: quoted(text, self._special) for number, text in by_position(critiques, n_items).items()}
        content = "".join(self.item_token + after.get(number, "") for number in range(n_items)) + encodable(prompt)
        if self.tokenizer.chat_template is None:
            return content + "\n"
        message = [{"role": "user", "content": content}]
        text = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        # Both the chat template and the tokenizer may add the BOS token: keep one.
        bos = self.tokenizer.bos_token
        if bos and text.startswith(bos) and self.tokenizer("")["input_ids"][:1] == [self.tokenizer.bos_token_id]:
            text = text.removeprefix(bos)
        return text

    @functools.cached_property
    def _special(self) -> list[str]:
        """The special tokens, which a text written by others must not contain."""
        added = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        return [*self.tokenizer.all_special_tokens, *added]

    def tokenize_prompt(
        self,
        n_items: int,
        task: str | None = None,
        prompt: str | None = None,
        critiques: Sequence[str | None] = (),
    ) -> list[int]:
        """The token ids of `prompt_text`."""
        return self.tokenizer(self.prompt_text(n_items, task, prompt, critiques))["input_ids"]

    def tokenize_completion(self, text: str) -> list[int]:
        """The token ids of a narrative as the model learns it: the text and its end token."""
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.end_token_id]

    @functools.cached_property
    def end_token_id(self) -> int:
        """The token after a completion: the chat template's end of a turn; without one, the tokenizer's end of a text.

        The `eos_token` of some instruct models ends a document, not a turn (gemma, llama 3 base tokenizers).
        """
        tokenizer = self.tokenizer
        if tokenizer.chat_template is not None:
            turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "completion"}]
            text = tokenizer.apply_chat_template(turns, tokenize=False)
            special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
            _, shown, after = text.rpartition("completion")
            ids = tokenizer(after, add_special_tokens=False)["input_ids"] if shown else []
            if end := [token for token in ids if token in special]:
                return end[0]
        return tokenizer.eos_token_id

    def fit(
        self,
        n_items: int,
        task: str | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
        critiques: Sequence[str | None] = (),
    ) -> tuple[int, list[int]]:
        """The number of latest purchases that fit into `max_length` with the prompt, and the token ids of both.

        `task`, `prompt` and `critiques` are as in `prompt_text`; `max_length` defaults to `tokenizer.model_max_length`
        where that is set.

        Raises:
            ValueError: the prompt without purchases is longer than `max_length`.
        """
        if max_length is None and self.tokenizer.model_max_length < 1_000_000:  # a larger one means "not set"
            max_length = self.tokenizer.model_max_length
        number = min(n_items, self.max_history)
        while True:
            ids = self.tokenize_prompt(number, task, prompt, critiques)
            excess = 0 if max_length is None else len(ids) - max_length
            if excess <= 0:
                return number, ids
            if not number:
                raise ValueError(
                    f"The prompt without purchases has {len(ids)} tokens, expected at most {max_length}: shorten it."
                )
            # Without one of the latest items the prompt also loses its critique.
            others = number - 1 - len(critiques)
            number -= min(excess, others) if others > 0 else 1

    def __call__(
        self,
        history: Any,
        task: str | Sequence[str | None] | None = None,
        prompt: str | Sequence[str | None] | None = None,
        return_tensors: str | None = "pt",
        max_length: int | None = None,
        critiques: Sequence[Sequence[str | None]] | None = None,
    ) -> BatchFeature:
        """Model inputs for one history or a batch of them, padded on the left for generation.

        An item without a CF vector is cold: its vector is zero. Only the latest `max_history` purchases are used, and
        fewer, with a warning, where prompt and history would be longer than `max_length`.

        Args:
            history: purchases, oldest first, or a row of the dataset, or a list of either; a history may be empty.
                Lists may be arrays, or columns or tables of pandas, pyarrow and `datasets`.
            task: a key of `task_prompts`, or one per history.
            prompt: an instruction in place of a task, or one per history.
            return_tensors: "pt", "np" or None.
            max_length: maximum tokens; defaults to `tokenizer.model_max_length` where that is set.
            critiques: for each history the critiques of `prompt_text`.

        Returns:
            input_ids and attention_mask (B, T); history_cf (B, N, cf_dim), history_content (B, N, content_dim) and
            history_mask (B, N), padded on the right, and history_features (B, N, F) where the model reads any. N is at
            least 1.

        Raises:
            ValueError: a history is malformed or not in the order of its times, a task unknown, or a prompt without
                purchases too long.
        """
        histories, _ = read_histories(history)
        if not histories:
            raise ValueError("There are no histories, expected at least one: [] is one empty history.")
        tasks = one_each("task", task, len(histories))
        prompts = one_each("prompt", prompt, len(histories))
        purchases, token_ids = [], []
        turns = one_list_each(critiques, len(histories))
        for row, row_task, row_prompt, row_critiques in zip(histories, tasks, prompts, turns, strict=True):
            number, ids = self.fit(len(row), row_task, row_prompt, max_length, row_critiques)
            if number < 2 <= len(row) and any(row_critiques):
                critique = next(filter(None, reversed(row_critiques)))
                raise ValueError(
                    f"The critique {critique!r:.80} does not fit beside the prompt and two items into "
                    f"{max_length or self.tokenizer.model_max_length} tokens: shorten it."
                )
            purchases.append(row[len(row) - number :])
            token_ids.append(ids)
            if number < min(len(row), self.max_history):
                logger.warning(
                    "Only the latest %d purchases fit with this prompt: the oldest %d of %d were left out.",
                    number,
                    len(row) - number,
                    len(row),
                )

        tokens_mask = first_columns([len(ids) for ids in token_ids])[:, ::-1]  # (B, T), true on the right
        input_ids = np.full(tokens_mask.shape, self._pad_token_id, dtype=np.int64)  # (B, T)
        input_ids[tokens_mask] = np.concatenate(token_ids)
        history_mask = first_columns([len(row) for row in purchases])  # (B, N)
        data = {"input_ids": input_ids, "attention_mask": tokens_mask.astype(np.int64), "history_mask": history_mask}
        flat = [purchase for row in purchases for purchase in row]
        withheld = [row_task in self.metadata_only_tasks for row_task in tasks]
        texts = [
            interaction_text(purchase["item"], purchase.get("review"))
            for row, hidden in zip(purchases, withheld, strict=True)
            for purchase in (without_last_review(row) if hidden else row)
        ]
        vectors = {"history_cf": self._cf_vectors(flat), "history_content": self._content_vectors(texts)}
        if names := self.interaction_features:
            features = [
                values
                for row, hidden in zip(purchases, withheld, strict=True)
                for values in interaction_features(row, names, hidden)
            ]
            vectors["history_features"] = np.array(features, dtype=np.float32).reshape(-1, len(names))
        for name, rows in vectors.items():
            if rows is not None:
                data[name] = np.zeros((*history_mask.shape, rows.shape[1]), dtype=np.float32)  # (B, N, dim)
                data[name][history_mask] = rows
        return BatchFeature(data, tensor_type=return_tensors)

    def to_dict(self) -> dict[str, Any]:
        """The content of processor_config.json; the item vectors and the encoder are files beside it."""
        return {
            "processor_class": type(self).__name__,
            "auto_map": {"AutoProcessor": f"processing_regen.{type(self).__name__}"},
            "content_encoder": ENCODER_FOLDER if self._saves_encoder else self.content_encoder,
            "task_prompts": self.task_prompts,
            "metadata_only_tasks": self.metadata_only_tasks,
            "item_token": self.item_token,
            "max_history": self.max_history,
            "interaction_features": self.interaction_features,
            "cf_is_als": self.cf_is_als,
            "cf_alpha": self.cf_alpha,
            "cf_regularization": self.cf_regularization,
            "reads_critiques": self.reads_critiques,
        }

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Save all parts and the code into a folder, which may be that of the model; see [`ProcessorMixin`]."""
        folder = Path(save_directory)
        files = super().save_pretrained(str(folder))
        if self.cf_factors is not None:
            tensors = {"factors": self.cf_factors}
            if self.cf_user_gram is not None:
                tensors["user_gram"] = self.cf_user_gram
            if self.item_content is not None:
                tensors["content"] = self.item_content
            save_file(tensors, folder / ITEM_VECTORS)
            names = {"asins": self.cf_asins, "titles": self.item_titles}
            (folder / ITEM_NAMES).write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
            files += [str(folder / ITEM_VECTORS), str(folder / ITEM_NAMES)]
        if self._saves_encoder:
            target = folder / ENCODER_FOLDER
            if not isinstance(self.content_encoder, str):
                self.content_encoder.save_pretrained(str(target), create_model_card=False)
            elif Path(self.content_encoder).resolve() != target.resolve():
                shutil.copytree(self.content_encoder, target, dirs_exist_ok=True)
            files.append(str(target))
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", folder.name), **kwargs)
        return files

    @classmethod
    def get_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The arguments of `__init__`, with the item vectors and the encoder's folder; see [`ProcessorMixin`]."""
        hub: dict[str, Any] = {name: kwargs[name] for name in HUB if name in kwargs}
        subfolder = kwargs.get("subfolder") or ""
        source = str(pretrained_model_name_or_path)
        check_folder(source, subfolder, "processor_config.json")
        arguments, kwargs = super().get_processor_dict(source, **kwargs)
        optional: dict[str, Any] = {"subfolder": subfolder, "_raise_exceptions_for_missing_entries": False}
        vectors = cached_file(source, ITEM_VECTORS, **optional, **hub)
        names_file = cached_file(source, ITEM_NAMES, **optional, **hub)
        if vectors is not None and names_file is not None:
            names = json.loads(Path(names_file).read_text(encoding="utf-8"))
            names = {"asins": names} if isinstance(names, list) else names  # the form of earlier versions
            arguments["cf_asins"], arguments["item_titles"] = names["asins"], names.get("titles", ())
            tensors = load_file(vectors)
            arguments["item_content"] = tensors.get("content")
            arguments["cf_factors"], arguments["cf_user_gram"] = tensors["factors"], tensors.get("user_gram")
        if arguments.get("content_encoder") == ENCODER_FOLDER:
            root = Path(source)
            if not root.is_dir():
                pattern = f"{subfolder}/{ENCODER_FOLDER}/*".removeprefix("/")
                root = Path(snapshot_download(source, allow_patterns=[pattern], **hub))
            arguments["content_encoder"] = str(root / subfolder / ENCODER_FOLDER)
        return arguments, kwargs

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors that `__call__` returns."""
        return ["input_ids", "attention_mask", "history_cf", "history_content", "history_mask", "history_features"]

    @property
    def _tasks(self) -> str:
        return ", ".join(self.task_prompts) or "none"

    @property
    def _saves_encoder(self) -> bool:
        """Whether the encoder is saved with the processor; otherwise only its name is saved."""
        if self.content_encoder is None:
            return False
        return not isinstance(self.content_encoder, str) or Path(self.content_encoder).is_dir()

    @property
    def _pad_token_id(self) -> int:
        """The id of the padding token, or of any other token: the attention mask hides it."""
        ids = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(token for token in ids if token is not None)

    def _check_parts(self) -> None:
        if self.tokenizer.tokenize(self.item_token) != [self.item_token]:
            raise ValueError(
                f"{self.item_token!r} is not one token of the tokenizer: call tokenizer.add_special_tokens("
                f"{{'additional_special_tokens': ['{self.item_token}']}}) and resize the model's embeddings."
            )
        self._check_table()
        unknown = sorted(set(self.metadata_only_tasks) - set(self.task_prompts))
        if unknown:
            raise ValueError(
                f"metadata_only_tasks contains {', '.join(unknown)}, expected keys of task_prompts: {self._tasks}."
            )

    def _content_vectors(self, texts: list[str]) -> np.ndarray | None:
        """s_i of each text, L2 normalised: (N, content_dim)."""
        if self.content_encoder is None:
            return None
        # At least one text, because an empty result has no width.
        vectors = self.encoder.encode(texts or [""], normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)[: len(texts)]


__all__ = ["RegenProcessor"]
