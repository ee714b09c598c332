"""The rules that keep the parts apart, read from the sources."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import regen_hf

PACKAGE = Path(regen_hf.__file__).parent
ROOT = PACKAGE.parent
STAGES = {
    "sample",
    "release",
    "sequences",
    "narratives",
    "ratings",
    "dataset",
    "embeddings",
    "training",
    "evaluation",
    "reading",
    "figures",
}
# `embeddings` owns the vector store and `training` the batches made of it, which others read; `evaluation` may use
# `ratings` and `llm`. `reviews` and `engines` are parts of `sequences`.
ALLOWED = {
    ("training", "embeddings"),
    ("evaluation", "embeddings"),
    ("evaluation", "training"),
    ("evaluation", "ratings"),
}
# peft, for a model in adapter form alone.
SHIPPED = {"transformers", "torch", "numpy", "safetensors", "huggingface_hub", "sentence_transformers", "peft"}


def imports(path: Path) -> set[str]:
    """Absolute dotted names of all that a file imports, inside functions too."""
    found = set()
    here = ["regen_hf", *path.relative_to(PACKAGE).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: -node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def part(name: str) -> str | None:
    """The module of this package that a dotted name lies in."""
    words = name.split(".")
    return words[1] if words[0] == "regen_hf" and len(words) > 1 else None


def test_stages_never_import_each_other():
    broken = []
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own in STAGES:
            others = {part(name) for name in imports(path)} & STAGES - {own}
            broken += [f"{path.relative_to(ROOT)} imports {other}" for other in others if (own, other) not in ALLOWED]
    assert broken == []


def test_the_shipped_model_needs_nothing_of_this_package():
    for path in (PACKAGE / "model").glob("*.py"):
        for name in imports(path):
            top = name.split(".")[0]
            assert top in SHIPPED | {"regen_hf"} or top in sys.stdlib_module_names, f"{path.name} imports {name}"
            assert part(name) in (None, "model"), f"{path.name} imports {name}"


def test_the_import_rules_are_seen_where_they_are_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "ratings.py").write_text("def f():\n    from .narratives import build\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "modeling_regen.py").write_text("from ..schema import TASKS\n")
    assert "regen_hf.narratives.build" in imports(tmp_path / "ratings.py")
    assert "regen_hf.schema" in imports(tmp_path / "model" / "modeling_regen.py")


def test_the_space_never_imports_the_package():
    for path in (ROOT / "spaces" / "regen_demo").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert names
        assert not [name for name in names if name.startswith("regen_hf")]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_library_files_are_short_and_raise_instead_of_asserting(path):
    text = path.read_text(encoding="utf-8")
    assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(text)))
    assert len(text.splitlines()) <= 450, "a file past about 400 lines becomes a folder"
    assert path.name not in ("utils.py", "helpers.py", "base.py")


def test_importing_the_command_line_loads_nothing_heavy():
    heavy = ["torch", "transformers", "datasets", "ibis", "duckdb", "pandas", "pyarrow", "numpy", "gradio"]
    code = f"import sys, regen_hf, regen_hf.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
