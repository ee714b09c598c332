"""What `regen inspect` prints: one shopper of a run, or the requests about one and their answers."""

from .requests import inspect_requests
from .shopper import inspect
from .terminal import clean

__all__ = ["clean", "inspect", "inspect_requests"]
