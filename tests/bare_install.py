"""Hides installed packages, so that a process sees an installation with some of the extras of pyproject.toml."""

import importlib.metadata
import re
import sys
import tomllib
from importlib.machinery import PathFinder

from packaging.requirements import Requirement

from tests.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = [name for name in PROJECT["optional-dependencies"] if name != "dev"]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(extras):
    """The distributions that `pip install "regen-hf[extras]"` installs, from the metadata of the installed ones."""
    names, seen = {"regen-hf"}, set()
    todo = [*PROJECT["dependencies"], *(text for extra in extras for text in PROJECT["optional-dependencies"][extra])]
    while todo:
        requirement = Requirement(todo.pop())
        name = canonical(requirement.name)
        if name == "regen-hf":  # an extra that contains another
            todo += [text for extra in requirement.extras for text in PROJECT["optional-dependencies"][extra]]
            continue
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                requires = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            names.add(name)
            for text in requires:
                marker = Requirement(text).marker
                if marker is None or marker.evaluate({"extra": extra}):
                    todo.append(text)
    return names


def hide(*extras):
    """Hide all packages that `pip install "regen-hf[extras]"` does not install; without `extras`, a bare install."""
    kept = installed(extras)
    modules = {
        module: {canonical(name) for name in names}
        for module, names in importlib.metadata.packages_distributions().items()
    }
    # Python itself has imported the hook of setuptools.
    hidden = {module for module, names in modules.items() if not names & kept} - {"_distutils_hack"}

    class Installed(PathFinder):
        """Finds only what is kept."""

        @classmethod
        def find_spec(cls, fullname, path=None, target=None):
            return None if fullname.partition(".")[0] in hidden else super().find_spec(fullname, path, target)

        @classmethod
        def find_distributions(cls, *args, **kwargs):
            return (one for one in super().find_distributions(*args, **kwargs) if canonical(one.name) in kept)

    assert not hidden & set(sys.modules), sorted(hidden & set(sys.modules))
    sys.meta_path[sys.meta_path.index(PathFinder)] = Installed
    return hidden
