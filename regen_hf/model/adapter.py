"""The prefix encoder of section 4.2: from the two embeddings of an interaction to one soft token.

Shapes:
    B   rows of the batch (users)
    N   interactions of the longest history of the batch
    C   width of c_i = [v'_i, has_cf_i, s_i]
    D   width of the language model's embeddings
"""

from __future__ import annotations

import torch
from torch import nn

from .configuration_regen import RegenConfig


class RegenAdapter(nn.Module):
    """Turns each interaction into one soft token of the language model's width.

    Shape:
        - history_cf: (B, N, cf_dim), zero where the item has no vector
        - history_content: (B, N, content_dim)
        - output: (B, N, D)
    """

    def __init__(self, config: RegenConfig, width: int) -> None:
        super().__init__()
        self.reads_cf = config.embedding_mode != "content"
        self.reads_content = config.embedding_mode != "cf"
        self.cf_dim, self.content_dim, self.cf_mean_norm = config.cf_dim, config.content_dim, config.cf_mean_norm
        # Columns of each half; the one beyond cf_dim is the flag "has a CF vector".
        self.columns = (config.cf_dim + 1 if self.reads_cf else 0, config.content_dim if self.reads_content else 0)
        if config.adapter == "linear":
            self.projection: nn.Module = nn.Linear(sum(self.columns), width)
        else:
            hidden = config.adapter_hidden_size or width
            self.projection = nn.Sequential(nn.Linear(sum(self.columns), hidden), nn.GELU(), nn.Linear(hidden, width))

    def fuse(self, history_cf: torch.Tensor | None, history_content: torch.Tensor | None) -> torch.Tensor:
        """c_i = [v'_i, has_cf_i, s_i], without the half that `embedding_mode` drops: (B, N, C).

        Both halves have a norm of about 1 (section 4.2), so their components are small: times the square root of the
        width they have a variance of about 1, as the layers behind expect, and the adapter learns many times faster.
        """
        halves = []
        if self.reads_cf:
            v = self._checked("history_cf", history_cf, self.cf_dim).float()  # (B, N, cf_dim)
            has_cf = (v != 0).any(-1, keepdim=True)  # (B, N, 1): a cold item is not the same as an average one
            halves += [v / self.cf_mean_norm * self.cf_dim**0.5, has_cf.float()]
        if self.reads_content:
            s = self._checked("history_content", history_content, self.content_dim).float()  # (B, N, content_dim)
            halves += [nn.functional.normalize(s, dim=-1) * self.content_dim**0.5]
        return torch.cat(halves, dim=-1).to(next(self.projection.parameters()).dtype)  # (B, N, C)

    def forward(self, history_cf: torch.Tensor | None, history_content: torch.Tensor | None) -> torch.Tensor:
        """The soft tokens of the interactions: (B, N, D)."""
        return self.projection(self.fuse(history_cf, history_content))  # (B, N, D)

    def parts(self, history_cf: torch.Tensor | None, history_content: torch.Tensor | None) -> list[torch.Tensor | None]:
        """What CF and content each add to the soft token of a linear adapter, (B, N, D) each, the bias in neither.

        None for the half that is not read; both None for an MLP, whose output is not a sum.
        """
        if not isinstance(self.projection, nn.Linear):
            return [None, None]
        weights = self.projection.weight.split(self.columns, dim=1)  # (D, cf_dim + 1), (D, content_dim)
        halves = self.fuse(history_cf, history_content).split(self.columns, dim=-1)
        return [half @ weight.T if half.shape[-1] else None for half, weight in zip(halves, weights, strict=True)]

    @staticmethod
    def _checked(name: str, vectors: torch.Tensor | None, width: int) -> torch.Tensor:
        if vectors is None:
            raise ValueError(f"The prompt holds a history, and this model reads {name}, which is missing: pass it.")
        if vectors.dim() != 3 or vectors.shape[-1] != width:
            raise ValueError(f"{name} was given the shape {tuple(vectors.shape)}, expected (batch, history, {width}).")
        return vectors


__all__ = ["RegenAdapter"]
