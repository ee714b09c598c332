"""What `regen inspect` prints: one shopper of a run, the items recommended to one, or the requests about one."""

from .recommendations import inspect_recommendations
from .requests import inspect_requests
from .shopper import inspect
from .terminal import clean

__all__ = ["clean", "inspect", "inspect_recommendations", "inspect_requests"]
