"""Linear layers in bfloat16 for CPUs, with their weights in the layout that oneDNN computes in.

A plain layer copies its weights to that layout in each call, which takes half the time of a step. torch.compile packs
the weights of frozen models by the same functions.
"""

from __future__ import annotations

from typing import Any

import torch


class Packed(torch.nn.Module):
    """The layer `linear`, without a reference to its weights, so that their memory is freed."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        self.weight: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """As of the plain layer."""
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, "none", [], "")
        return output


def can_pack(model: Any) -> bool:
    """Whether the weights of `model` are in bfloat16 on a CPU for which oneDNN computes in it."""
    on_cpu = model.device.type == "cpu" and model.dtype == torch.bfloat16
    operators = hasattr(torch.ops.mkldnn, "_linear_pointwise") and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    return on_cpu and operators and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def pack(model: Any) -> None:
    """Replace the linear layers of `model`, if that is possible."""
    if not can_pack(model):
        return
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if type(layer) is torch.nn.Linear:
                setattr(parent, name, Packed(layer))
