"""Muon for the matrices of a language model that is trained from random weights, AdamW for all other parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ...model.adapter import RegenAdapter
from ...model.item_head import ItemHead


class MuonAndAdamW(torch.optim.Optimizer):
    """Two of torch's optimisers as one, so that a trainer can step, schedule and save them.

    Muon (Jordan et al. 2024) gives every direction of a weight matrix an update of the same size, including those with
    a small gradient. Embeddings, norms and the adapter keep AdamW, as its authors advise.

    Args:
        matrices: weights of the linear layers, each with two dimensions, for Muon.
        others: all other parameters, for AdamW with `betas` and `eps`.
    """

    def __init__(
        self,
        matrices: list[torch.Tensor],
        others: list[torch.Tensor],
        learning_rate: float,
        weight_decay: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        self.adamw = torch.optim.AdamW(others, lr=learning_rate, betas=betas, eps=eps, weight_decay=weight_decay)
        self.muon = torch.optim.Muon(matrices, lr=learning_rate, momentum=0.95, weight_decay=weight_decay)
        # Shared group objects: a schedule that sets a learning rate here also sets it there.
        super().__init__([*self.adamw.param_groups, *self.muon.param_groups], {})

    def join_groups(self) -> None:
        """Take over the current groups of both optimisers."""
        self.param_groups = [*self.adamw.param_groups, *self.muon.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Step both optimisers; a closure is not supported."""
        self.adamw.step()
        self.muon.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of both optimisers, by name."""
        return {"adamw": self.adamw.state_dict(), "muon": self.muon.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the states that `state_dict` returned."""
        self.adamw.load_state_dict(state_dict["adamw"])
        self.muon.load_state_dict(state_dict["muon"])
        self.join_groups()


def muon_and_adamw(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
) -> MuonAndAdamW:
    """The optimiser of a fused model: Muon for the linear layers of its language model, except the head."""
    language_model: nn.Module = model.get_submodule("model.language_model")
    matrices = [layer.weight for layer in language_model.modules() if isinstance(layer, nn.Linear)]
    chosen = {id(matrix) for matrix in matrices}
    others: list[torch.Tensor] = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    return MuonAndAdamW(matrices, others, learning_rate, weight_decay, betas, eps)


def split_adapter(optimizer: torch.optim.Optimizer, model: nn.Module, learning_rate: float) -> None:
    """Move the parameters of adapter and item head into groups with their own learning rate; other options stay.

    PEFT trains copies of both (`modules_to_save`), of the same classes. The optimiser must be new.
    """
    adapters = (module for module in model.modules() if isinstance(module, RegenAdapter | ItemHead))
    chosen = {id(parameter) for adapter in adapters for parameter in adapter.parameters()}
    for group in list(optimizer.param_groups):
        own = [parameter for parameter in group["params"] if id(parameter) in chosen]
        if len(own) == len(group["params"]):
            group["lr"] = learning_rate if own else group["lr"]
        elif own:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in chosen]
            optimizer.add_param_group({**group, "params": own, "lr": learning_rate})
