"""What can go wrong for a user, as one tree.

    RegenError
    ├── ConfigError   a setting that does not exist or makes no sense
    ├── InputError    a file that is missing, empty, damaged or not what it should be
    └── RunError      a run folder that is busy, foreign, or lacks the stage that another one needs

Each message says what was given, what was expected, and what to do. The command line prints the message alone and
exits with 1; any other exception is a defect of this package and keeps its traceback.
"""


class RegenError(Exception):
    """Base of every error that a user can mend."""


class ConfigError(RegenError, ValueError):
    """A setting that does not exist or makes no sense."""


class InputError(RegenError, ValueError):
    """A file that is missing, empty, damaged or not what it should be."""


class RunError(RegenError, RuntimeError):
    """A run folder that is busy, foreign, or lacks the stage that another one needs."""


def missing_extra(package: str, extra: str) -> RegenError:
    """The error for an optional dependency that is not installed.

    >>> print(missing_extra("trl", "train"))
    The package 'trl' is not installed. Install it with: pip install "regen-hf[train]"
    """
    return RegenError(f'The package {package!r} is not installed. Install it with: pip install "regen-hf[{extra}]"')
