"""The prefix encoder of section 4.2: maps the two embeddings of an interaction to one soft token.

Shapes:
    B   rows of the batch (users)
    N   interactions of the longest history of the batch
    C   width of c_i = [v'_i, has_cf_i, s_i], and two columns for each further feature
    F   further features of an interaction
    H   width of the transformer
    D   width of the language model's embeddings
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .configuration_regen import RegenConfig


class RegenAdapter(nn.Module):
    """Maps each interaction to one soft token of the language model's width.

    Shape:
        - history_cf: (B, N, cf_dim), zero where the item has no vector
        - history_content: (B, N, content_dim)
        - history_mask: (B, N), true for the real interactions
        - history_features: (B, N, F), NaN where unknown
        - output: (B, N, D)
    """

    content_mean: torch.Tensor
    content_matrix: torch.Tensor

    def __init__(self, config: RegenConfig, width: int) -> None:
        super().__init__()
        self.reads_cf = config.embedding_mode != "content"
        self.reads_content = config.embedding_mode != "cf"
        self.features = config.interaction_features
        self.cf_dropout = config.cf_dropout if config.embedding_mode == "both" else 0.0
        self.cf_dim, self.content_dim, self.cf_mean_norm = config.cf_dim, config.content_dim, config.cf_mean_norm
        # Columns of each part of c_i; the additional column of CF is the flag "has a CF vector".
        self.columns = (
            config.cf_dim + 1 if self.reads_cf else 0,
            config.content_dim if self.reads_content else 0,
            2 * len(self.features),
        )
        if self.reads_content:
            # Measured before training, see `regen_hf.stages.training.whitening`.
            self.register_buffer("content_mean", torch.zeros(config.content_dim))
            self.register_buffer("content_matrix", torch.eye(config.content_dim))
        hidden = config.adapter_hidden_size or width
        if config.adapter == "linear":
            self.projection: nn.Module = nn.Linear(sum(self.columns), width)
        elif config.adapter == "mlp":
            self.projection = nn.Sequential(nn.Linear(sum(self.columns), hidden), nn.GELU(), nn.Linear(hidden, width))
        else:
            self.projection = HistoryTransformer(config, sum(self.columns), hidden, width)
        # The transformer has its own position embeddings.
        self.recency = (
            nn.Embedding(config.recency, width) if config.recency and config.adapter != "transformer" else None
        )

    def whiten(self, content_mean: Any = None, content_matrix: Any = None) -> None:
        """Set mean and matrix of the whitening, which are stored with the weights. None keeps the current value.

        Args:
            content_mean: (content_dim,), subtracted from the normalised content vectors.
            content_matrix: (content_dim, content_dim), by which the differences are multiplied.

        Raises:
            ValueError: an array has another shape, or is not finite.
        """
        for name, array in {"content_mean": content_mean, "content_matrix": content_matrix}.items():
            if array is not None and self.reads_content:
                values, buffer = torch.as_tensor(array, dtype=torch.float32), self.get_buffer(name)
                if values.shape != buffer.shape:
                    raise ValueError(f"{name} has the shape {tuple(values.shape)}, expected {tuple(buffer.shape)}.")
                if not values.isfinite().all():
                    raise ValueError(f"{name} contains NaN or infinity, expected finite values.")
                buffer.copy_(values)

    @torch.no_grad()
    def rescale(self, factor: float) -> None:
        """Multiply every soft token by `factor`, in the weights of the last layer and of the recency vectors."""
        last = self.projection
        if isinstance(last, HistoryTransformer):
            last = last.outputs
        elif isinstance(last, nn.Sequential):
            last = last[-1]
        for module in (last, self.recency):
            for parameter in () if module is None else module.parameters():
                parameter.mul_(factor)

    def fuse(
        self,
        history_cf: torch.Tensor | None,
        history_content: torch.Tensor | None,
        history_features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """c_i = [v'_i, has_cf_i, s_i, features], without the half that `embedding_mode` excludes: (B, N, C).

        Both halves have a norm of about 1 (section 4.2). They are multiplied by the square root of their width, so that
        their components have a variance of about 1, as the following layers expect. Content is whitened first,
        s_i = (s_i - mean) matrix, and normalised again; without whitening mean is 0 and matrix the identity.
        """
        parts = self._item_parts(history_cf, history_content)
        if self.features:
            columns = self._checked("history_features", history_features, len(self.features)).float()  # (B, N, F)
            for feature, values in zip(self.features, columns.split(1, dim=-1), strict=True):
                known = ~values.isnan()  # (B, N, 1)
                values = values.nan_to_num()
                scaled = (values - 3) / 2 if feature == "rating" else torch.log1p(values.clamp(min=0)) / 5
                parts += [scaled * known, known.float()]  # five months scale to about 1
        return torch.cat(parts, dim=-1).to(next(self.projection.parameters()).dtype)  # (B, N, C)

    def fuse_items(self, item_cf: torch.Tensor | None, item_content: torch.Tensor | None) -> torch.Tensor:
        """c_i of the items of a catalogue, from CF (I, cf_dim) and the content of their metadata (I, content_dim).

        Returns:
            (I, C), without the columns of further features.
        """
        cf, content = (None if x is None else x.unsqueeze(0) for x in (item_cf, item_content))
        return torch.cat(self._item_parts(cf, content), dim=-1).squeeze(0)

    def _item_parts(self, history_cf: torch.Tensor | None, history_content: torch.Tensor | None) -> list[torch.Tensor]:
        parts = []
        if self.reads_cf:
            v = self._checked("history_cf", history_cf, self.cf_dim).float()  # (B, N, cf_dim)
            has_cf = (v != 0).any(-1, keepdim=True)  # (B, N, 1): separates a cold item from an average one
            parts += [v / self.cf_mean_norm * self.cf_dim**0.5, has_cf.float()]
        if self.reads_content:
            s = self._checked("history_content", history_content, self.content_dim).float()  # (B, N, content_dim)
            known = (s != 0).any(-1, keepdim=True)  # (B, N, 1): a missing text stays zero whatever the mean is
            s = (nn.functional.normalize(s, dim=-1) - self.content_mean.float()) @ self.content_matrix.float()
            parts += [nn.functional.normalize(s, dim=-1) * self.content_dim**0.5 * known]
        return parts

    def forward(
        self,
        history_cf: torch.Tensor | None,
        history_content: torch.Tensor | None,
        history_mask: torch.Tensor,
        history_features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The soft tokens of the interactions: (B, N, D)."""
        if self.training and self.cf_dropout and history_cf is not None:
            interaction = torch.rand(*history_cf.shape[:2], 1, device=history_cf.device)  # (B, N, 1)
            history = torch.rand(len(history_cf), 1, 1, device=history_cf.device)  # (B, 1, 1)
            history_cf = history_cf.masked_fill((interaction < self.cf_dropout) | (history < self.cf_dropout), 0.0)
        fused = self.fuse(history_cf, history_content, history_features)  # (B, N, C)
        if isinstance(self.projection, HistoryTransformer):
            return self.projection(fused, history_mask)  # (B, N, D)
        soft = self.projection(fused)  # (B, N, D)
        if self.recency is not None:  # scaled like the halves of c_i
            position = _position(history_mask).clamp(max=self.recency.num_embeddings - 1).to(soft.device)  # (B, N)
            soft = soft + self.recency(position) * soft.shape[-1] ** 0.5
        return soft

    def parts(
        self,
        history_cf: torch.Tensor | None,
        history_content: torch.Tensor | None,
        history_features: torch.Tensor | None = None,
    ) -> list[torch.Tensor | None]:
        """The summands of CF and of content in the soft token of a linear adapter, (B, N, D) each, without the bias.

        None for a half that is not read; both None for the other adapters, whose output is not a sum.
        """
        if not isinstance(self.projection, nn.Linear):
            return [None, None]
        weights = self.projection.weight.split(self.columns, dim=1)  # (D, cf_dim + 1), (D, content_dim), (D, 2F)
        fused = self.fuse(history_cf, history_content, history_features).split(self.columns, dim=-1)
        return [
            part @ weight.T if part.shape[-1] else None for part, weight in zip(fused[:2], weights[:2], strict=True)
        ]

    @staticmethod
    def _checked(name: str, vectors: torch.Tensor | None, width: int) -> torch.Tensor:
        if vectors is None:
            raise ValueError(f"{name} is None, but the prompt has a history and this model reads {name}: pass it.")
        if vectors.dim() != 3 or vectors.shape[-1] != width:
            raise ValueError(f"{name} has the shape {tuple(vectors.shape)}, expected (batch, history, {width}).")
        return vectors


class HistoryTransformer(nn.Module):
    """A small transformer over the interactions of a history, with positions counted from the latest.

    Shape:
        - fused: (B, N, C)
        - history_mask: (B, N)
        - output: (B, N, D), finite for every row, also for one without interactions
    """

    def __init__(self, config: RegenConfig, columns: int, hidden: int, width: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(columns, hidden)
        self.positions = nn.Embedding(config.max_history, hidden)
        layer = nn.TransformerEncoderLayer(
            hidden,
            nhead=hidden // 64 if hidden % 64 == 0 else 1,
            dim_feedforward=4 * hidden,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(
            layer, config.adapter_layers, norm=nn.LayerNorm(hidden), enable_nested_tensor=False
        )
        self.outputs = nn.Linear(hidden, width)

    def forward(self, fused: torch.Tensor, history_mask: torch.Tensor) -> torch.Tensor:
        """The soft tokens: (B, N, D)."""
        mask = history_mask.to(fused.device, torch.bool)  # (B, N)
        limit = self.positions.num_embeddings
        if mask.shape[1] > limit:
            raise ValueError(
                f"The longest history has {mask.shape[1]} purchases, expected at most {limit} (max_history): pass the "
                "latest ones."
            )
        hidden = self.inputs(fused) + self.positions(_position(mask))  # (B, N, H)
        # A row without any key would be NaN, and so would every gradient: an empty row attends to its padding.
        padding = ~mask & mask.any(1, keepdim=True)  # (B, N)
        return self.outputs(self.layers(hidden, src_key_padding_mask=padding))  # (B, N, D)


def _position(history_mask: torch.Tensor) -> torch.Tensor:
    """The number of interactions after each one, (B, N): 0 for the latest."""
    mask = history_mask.long()
    return mask.sum(1, keepdim=True) - mask.cumsum(1)


__all__ = ["HistoryTransformer", "RegenAdapter"]
