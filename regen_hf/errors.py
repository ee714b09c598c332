"""Errors that a user can fix.

    RegenError
    ├── ConfigError   an unknown or invalid setting
    ├── InputError    a missing, empty, damaged or unsupported file
    └── RunError      a run folder that is locked, not a run, or lacks the output of a stage

A message states what is wrong, what was expected, and what to do. The command line prints only the message and exits
with 1. Any other exception is a bug of this package and keeps its traceback.
"""


class RegenError(Exception):
    """Base class of the errors that a user can fix."""


class ConfigError(RegenError, ValueError):
    """An unknown or invalid setting."""


class InputError(RegenError, ValueError):
    """A missing, empty, damaged or unsupported file."""


class RunError(RegenError, RuntimeError):
    """A run folder that is locked, not a run, or lacks the output of a stage."""


def missing_extra(package: str, extra: str) -> RegenError:
    """The error for an optional dependency that is not installed.

    >>> print(missing_extra("trl", "train"))
    The package 'trl' is not installed. Install it with: pip install "regen-hf[train]"
    """
    return RegenError(f'The package {package!r} is not installed. Install it with: pip install "regen-hf[{extra}]"')
