"""SQL that sets texts to null that failed checks or have low scores, with the scores of their part.

The scores of a part rate its texts together, so all of them are null once one of the texts is.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...schema import RATED, Narrative, rated_narratives, written_narratives
from .settings import DatasetConfig


@dataclass(frozen=True)
class Rule:
    """A condition under which a text is null."""

    name: str
    """As in the settings: `cut`, `profile.words`, `user.veracity=4`."""
    task: Narrative
    condition: str
    """An SQL condition over the columns of a row; null counts as false."""

    @property
    def applies(self) -> str:
        """The condition, for users who have the text."""
        return f"({_path(*map(str, self.task.field))} IS NOT NULL AND coalesce({self.condition}, false))"


def rules(config: DatasetConfig) -> list[Rule]:
    """The rules of the settings."""
    every = []
    for name, checks in config.dropped.items():
        for task in written_narratives():
            failed = [check for check in checks if check.partition(".")[0] == task.field[-1]]
            names = ", ".join(f"'{check}'" for check in failed)
            if failed:
                every.append(Rule(name, task, f"list_has_any(list_concat(checks.failed, checks.warnings), [{names}])"))
    for part, attribute, least in config.min_scores:
        every += [
            Rule(f"{part}.{attribute}={least}", task, f"{_path('metadata', part, attribute)} < {least}")
            for task in rated_narratives(part)
        ]
    return every


def columns(rules: list[Rule]) -> str:
    """The columns of narratives and scores for `SELECT * REPLACE (…)`."""
    texts: dict[str, list[str]] = {}
    for task in written_narratives():
        column, name = map(str, task.field)
        texts.setdefault(column, []).append(f'"{name}" := {_unless(_any_of(rules, [task]), _path(column, name))}')
    parts = []
    for part, attributes in RATED.items():
        dropped = _any_of(rules, rated_narratives(part))
        scores = [f'"{name}" := {_unless(dropped, _path("metadata", part, name))}' for name in attributes]
        parts.append(f'"{part}" := {_struct(_path("metadata", part), scores)}')
    replaced = {column: _struct(_path(column), fields) for column, fields in texts.items()}
    return ", ".join(
        f'{sql} AS "{column}"' for column, sql in (replaced | {"metadata": _struct("metadata", parts)}).items()
    )


def counts(rules: list[Rule]) -> str:
    """The number of texts that become null, in total (`texts`) and by name of the rule."""
    by_task = [f"CASE WHEN {_any_of(rules, [task])} THEN 1 ELSE 0 END" for task in written_narratives()]
    by_name: dict[str, list[str]] = {}
    for rule in rules:
        by_name.setdefault(rule.name, []).append(f"CASE WHEN {rule.applies} THEN 1 ELSE 0 END")
    sums = {"texts": by_task, **by_name}
    return ", ".join(f'coalesce(sum({" + ".join(cases)}), 0)::BIGINT AS "{name}"' for name, cases in sums.items())


def _any_of(rules: list[Rule], tasks: list[Narrative]) -> str:
    return " OR ".join(rule.applies for rule in rules if rule.task in tasks) or "false"


def _unless(condition: str, value: str) -> str:
    return f"CASE WHEN {condition} THEN NULL ELSE {value} END"


def _struct(column: str, fields: list[str]) -> str:
    """A struct of `fields`, null where `column` is."""
    return f"CASE WHEN {column} IS NULL THEN NULL ELSE struct_pack({', '.join(fields)}) END"


def _path(*names: str) -> str:
    return ".".join(f'"{name}"' for name in names)
