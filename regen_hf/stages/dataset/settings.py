"""Settings of the dataset stage."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from ...schema import CHECK_KINDS, LOWER_IS_BETTER, RATED, WARNINGS, is_second_config, written_narratives

PACKAGES = ("datasets", "pyarrow")
"""Libraries whose versions the output depends on."""

ERRORS = "errors"
"""In drop_failed: all kinds of checks but the warnings."""
TEXTS = tuple(str(task.field[-1]) for task in written_narratives())
SCORE = re.compile(r"(\w+)\.(\w+)=([1-7])")


@dataclass(frozen=True)
class DatasetConfig:
    """Settings of `regen dataset`."""

    name: str = ""
    """Name of the config of the dataset, as in load_dataset(…, "office"). Default: the name of the run folder."""
    # It does not change the rows, so a change does not make them stale.
    partial: bool = field(default=False, metadata={"affects_output": False})
    """Leave missing narratives null."""
    drop_failed: tuple[str, ...] = ()
    """Set texts to null that failed one of these checks, with the scores of their part: kinds such as cut, or a kind of
    one text, such as profile.words; errors stands for all kinds but the warnings. The rows stay."""
    min_score: tuple[str, ...] = ()
    """Set texts to null whose score is lower, with all scores of their part, as PART.ATTRIBUTE=N: user.veracity=4.
    Texts without a score stay."""

    def __post_init__(self) -> None:
        if self.name and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name):
            raise ValueError(f"name is {self.name!r}, expected only letters, digits, '_', '-' and '.'")
        if is_second_config(self.name):
            raise ValueError(
                f"name is {self.name!r}, expected another end: it would be a table of the dataset "
                f"{self.name.rpartition('-')[0]!r} in the same repository"
            )
        for check in self.drop_failed:
            kind = check.rpartition(".")[2]
            if kind not in (*CHECK_KINDS, ERRORS) or check not in (kind, *(f"{name}.{kind}" for name in TEXTS)):
                raise ValueError(
                    f"drop_failed contains {check!r}, expected {ERRORS}, a kind of check ({', '.join(CHECK_KINDS)}), "
                    f"or a kind after a text ({', '.join(TEXTS)}), such as profile.words"
                )
        for score in self.min_score:
            if not (match := SCORE.fullmatch(score)) or match[2] not in RATED.get(match[1], ()):
                raise ValueError(
                    f"min_score contains {score!r}, expected PART.ATTRIBUTE=N with N from 1 to 7, such as "
                    f"user.veracity=4; the parts are {', '.join(part for part in RATED if part != 'example')}"
                )
            if match[1] == "example" or match[2] in LOWER_IS_BETTER:
                why = "no text" if match[1] == "example" else "a text that is better the lower it is"
                raise ValueError(
                    f"min_score contains {score!r}, which rates {why}; name another score, such as user.veracity=4"
                )

    def config_name(self, run: Path) -> str:
        """The name of the config of the dataset of the run in the folder `run`.

        >>> DatasetConfig().config_name(Path("runs/my office")), DatasetConfig().config_name(Path("runs/office-items"))
        ('my_office', 'office-items_')
        """
        # The name of a folder may contain characters that the name of a config may not.
        name = self.name or re.sub(r"[^A-Za-z0-9_.-]", "_", run.resolve().name).lstrip(".-") or "regen"
        return f"{name}_" if is_second_config(name) else name

    @property
    def dropped(self) -> dict[str, tuple[str, ...]]:
        """The failed checks that null a text, by the given name, as `<text>.<kind>`."""
        return {check: _failed_checks(check) for check in self.drop_failed}

    @property
    def min_scores(self) -> list[tuple[str, str, int]]:
        """The parts and attributes with their lowest scores."""
        matches = [SCORE.fullmatch(score) for score in self.min_score]
        return [(match[1], match[2], int(match[3])) for match in matches if match]


def _failed_checks(check: str) -> tuple[str, ...]:
    """The failed checks that an entry of drop_failed stands for.

    >>> _failed_checks("profile.words"), len(_failed_checks("cut")) == len(TEXTS)
    (('profile.words',), True)
    """
    text, _, kind = check.rpartition(".")
    kinds = [one for one in CHECK_KINDS if one not in WARNINGS] if kind == ERRORS else [kind]
    return tuple(f"{name}.{one}" for name in ([text] if text else TEXTS) for one in kinds)
