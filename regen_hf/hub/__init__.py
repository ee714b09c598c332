"""The Hub: cards from results, the push and its proof, and the Space's app on this machine."""

from .dataset_card import dataset_card, merged_card
from .model_card import model_card
from .publishing import push
from .space import demo

__all__ = ["dataset_card", "demo", "merged_card", "model_card", "push"]
