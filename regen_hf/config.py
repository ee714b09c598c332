"""Configuration: YAML and overrides to frozen dataclasses, and their fingerprint.

A stage declares its settings as a frozen dataclass in its module `settings`, with a string under each field, which is
also the help of the command line. Unknown keys and wrong types raise ConfigError with the known keys.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import hashlib
import inspect
import itertools
import json
import math
import re
import textwrap
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from .errors import ConfigError

Section = TypeVar("Section")


def section(cls: type[Section], values: Mapping[str, Any], name: str) -> Section:
    """The dataclass `cls` built from the mapping `values`, the section `name` of the configuration.

    A field of `cls` with `metadata={"rest": True}` takes all keys that are not fields; `cls` checks them.

    Raises:
        ConfigError: a key is unknown, or a value has the wrong type or is rejected by `__post_init__`.
    """
    from pydantic import TypeAdapter, ValidationError

    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    rest = next((field.name for field in dataclasses.fields(cls) if field.metadata.get("rest")), None)  # type: ignore[arg-type]
    removed = getattr(cls, "REMOVED", {})
    # Folders of earlier versions hold every setting: one that was off had no effect.
    values = {key: value for key, value in values.items() if key not in removed or value}
    loose = {key: value for key, value in values.items() if key not in known}
    for key in loose:
        if key in removed:  # what to set instead, by the name of the removed setting
            raise ConfigError(f"The setting {name}.{key} was removed. Set in its place {name}.{removed[key]}.")
    if loose and rest is None:
        raise ConfigError(unknown(f"{name}.{next(iter(loose))}", [f"{name}.{field}" for field in known]))
    if loose and rest is not None:
        values = {key: values[key] for key in values if key in known} | {rest: {**(values.get(rest) or {}), **loose}}
    types = typing.get_type_hints(cls)
    for key, value in values.items():
        _check_number(f"{name}.{key}", value, types[key])
    given = {
        # A single value is accepted as a list of one.
        key: [value] if isinstance(value, str) and typing.get_origin(types[key]) is tuple else value
        for key, value in values.items()
    }
    try:
        return TypeAdapter(cls).validate_python(given)
    except ValidationError as error:
        problem = error.errors()[0]
        message = problem["msg"].removeprefix("Value error, ").removesuffix(".")
        if not problem["loc"]:  # from `__post_init__`, whose message names the setting
            raise ConfigError(f"Settings of {name!r}: {message}.") from None
        key = ".".join([name, *map(str, problem["loc"])])
        hidden = [field.name for field in dataclasses.fields(cls) if field.metadata.get("hidden")]  # type: ignore[arg-type]
        # It may be a secret.
        value = "a value that is not shown" if problem["loc"][0] in hidden else repr(problem["input"])
        raise ConfigError(f"Setting {key} was given {value}: {message}.") from None


def _check_number(key: str, value: Any, kind: Any) -> None:
    """Check that a boolean is not given for a number, and that an integer fits into 64 bits."""
    kinds = {kind, *typing.get_args(kind)}
    if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
        raise ConfigError(f"Setting {key} was given {value!r}, expected a number.")
    if isinstance(value, int) and int in kinds and abs(value) >= 2**63:
        raise ConfigError(f"Setting {key} was given {value}, expected an integer below 2**63.")


def at_least(settings: Any, bound: float, *names: str) -> None:
    """Check that the numbers among the settings `names` of a config dataclass are at least `bound`; None passes.

    Raises:
        ValueError: a number is below the bound.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and not bound <= value < math.inf:  # NaN fails too
            raise ValueError(f"{name} was given {value}, expected at least {bound}")


def check_seed(settings: Any) -> None:
    """Check that numpy and torch accept the `seed`.

    Raises:
        ValueError: it is below 0 or has more than 32 bits.
    """
    if not 0 <= settings.seed < 2**32:
        raise ValueError(f"seed was given {settings.seed}, expected an integer from 0 to {2**32 - 1}")


def unknown(given: Any, known: list[str]) -> str:
    """The error message for an unknown key, with the closest key and all keys."""
    given = str(given)  # YAML keys may be numbers
    close = difflib.get_close_matches(given, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Unknown setting {given!r}.{hint} Known settings: {', '.join(known)}."


def parse_yaml(text: str) -> Any:
    """Plain data from YAML; dates, and words such as `no` and `off`, stay text, as the settings expect.

    Only `true` and `false` are booleans, as in YAML 1.2. A boolean setting also accepts the other words.

    Raises:
        ValueError: the text is not valid YAML.
    """
    import yaml

    # A subclass, so that the resolvers of other users of PyYAML stay unchanged.
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.yaml_implicit_resolvers = {  # type: ignore[attr-defined]
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":bool"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    boolean = re.compile("true|True|TRUE|false|False|FALSE")
    loader.add_implicit_resolver("tag:yaml.org,2002:bool", boolean, list("tTfF"))  # type: ignore[attr-defined]
    loader.construct_mapping = _construct_mapping  # type: ignore[attr-defined]
    try:
        return yaml.load(text, loader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _construct_mapping(loader: Any, node: Any, deep: bool = False) -> dict[Any, Any]:
    """A mapping without repeated keys, of which PyYAML would keep the last."""
    import yaml

    keys = [key.value for key, _ in node.value]
    if repeated := [key for key in keys if keys.count(key) > 1 and key != "<<"]:
        raise yaml.YAMLError(f"the key {repeated[0]!r} occurs twice, expected each key once")
    return dict(yaml.SafeLoader.construct_mapping(loader, node, deep))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in the YAML file `path`; empty for an empty file.

    Raises:
        ConfigError: the file does not exist or contains no mapping.
    """
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"The configuration file {path} does not exist.") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"The configuration file {path} is not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise ConfigError(f"The configuration file {path} contains a {kind}, expected 'section: …' keys.")
    return values


@functools.cache
def help_texts(cls: type) -> dict[str, str]:
    """The string under each field of the dataclass `cls`, by field name; that of the parent where `cls` has none."""
    texts: dict[str, str] = {}
    for parent in cls.__bases__:
        texts |= help_texts(parent) if dataclasses.is_dataclass(parent) else {}
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    for statement, after in itertools.pairwise(typing.cast(ast.ClassDef, body).body):
        match statement, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = inspect.cleandoc(text).replace("\n", " ")
    return texts


def fingerprint(value: Any) -> str:
    """A short hash of plain data (dicts, lists, strings, numbers), independent of the order of keys.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]
