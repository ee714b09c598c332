"""The rules of the architecture, read from the sources: order of imports, file names of a run, the shipped model."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import regen_hf
from regen_hf import outputs

PACKAGE = Path(regen_hf.__file__).parent
ROOT = PACKAGE.parent
FLOORS = [
    ["version"],
    ["errors"],
    ["schema"],
    ["config"],
    ["progress"],
    ["intervals"],
    ["outputs"],
    ["user_rows"],
    ["model"],
    ["engines"],
    ["reviews"],
    ["llm"],
    ["prompts"],
    ["vectors"],
    ["metrics"],
    ["cards"],
    ["stages"],
    ["run"],
    ["builder"],
    ["inspection"],
    ["hub"],
    ["report"],
    ["cli"],
    ["__init__"],
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
"""A module imports only from floors below its own."""
SHIPPED = {"transformers", "torch", "numpy", "safetensors", "huggingface_hub", "sentence_transformers", "peft"}
"""Libraries of the shipped model; peft only merges models in adapter form."""
CONSTANTS = {value for name, value in vars(outputs).items() if name.isupper() and isinstance(value, str)}
FILE_NAMES = {Path(name).name for name in {*outputs.FILES, *CONSTANTS} if "." in name.lstrip(".")} - {outputs.CARD}
"""Names that only `outputs` spells; README.md is also the name of every card on the Hub."""
FOLDER_NAMES = {*outputs.FOLDERS.values(), *(name for name in CONSTANTS if "." not in name.lstrip("."))}
JOINS = {"join", "joinpath", "Path", "glob", "rglob"}
"""Calls whose arguments are parts of a path."""


def module_name(path, package=PACKAGE):
    """The dotted name of a file below `package`, which stands for regen_hf."""
    parts = ["regen_hf", *path.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(package=PACKAGE):
    return {module_name(path, package): path for path in sorted(package.rglob("*.py"))}


def imports(path, package=PACKAGE):
    """Dotted names of everything that a file imports: lazily, for types, and by a string given to import_module."""
    name, is_package = module_name(path, package), path.name == "__init__.py"
    base = name.split(".") if is_package else name.split(".")[:-1]

    def absolute(module, level):
        stem = ".".join(base[: len(base) - level + 1]) if level else ""
        return ".".join(part for part in (stem, module) if part)

    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{absolute(node.module, node.level)}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and called(node) in IMPORTERS:
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            texts = strings(given[0]) if given else []
            if given and not isinstance(given[0], ast.Constant):  # parts of a name: only its beginning counts
                texts = [text for text in texts if text.startswith("regen_hf")]
            names |= {absolute(text.lstrip("."), len(text) - len(text.lstrip("."))) for text in texts}
        elif isinstance(node, ast.Dict):  # names that are imported when they are first used
            values = [value for value in node.values if isinstance(value, ast.Constant)]
            names |= {str(value.value) for value in values if str(value.value).startswith("regen_hf.")}
    return names


IMPORTERS = {"import_module", "__import__", "resolve_name"}


def called(node):
    """The name of the function that a call names."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def strings(node):
    return [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def floor(name):
    """The floor of a dotted name of regen_hf, None for other names."""
    words = name.split(".")
    if words[0] != "regen_hf":
        return None
    return words[1] if len(words) > 1 and words[1] in FLOOR else "__init__"


def stage(name):
    words = name.split(".")
    return words[2] if words[:2] == ["regen_hf", "stages"] and len(words) > 2 else None


def upward_imports(package=PACKAGE):
    """Imports that break the order of the floors, or that connect two stages."""
    wrong = []
    for name, path in modules(package).items():
        for imported in sorted(imports(path, package)):
            here, there = floor(name), floor(imported)
            if there is None or (here == there and stage(name) in (None, stage(imported))):
                continue
            if FLOOR[there] >= FLOOR[here]:
                wrong.append(f"{name} imports {imported}")
    return wrong


def file_name_literals(package=PACKAGE):
    """Names of files and folders of a run that a module other than `outputs` spells; help texts may name them."""
    wrong = []
    for name, path in modules(package).items():
        if floor(name) in ("outputs", "model") or name == "regen_hf.cli.help":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            literal = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
            if literal and not re.search(r"\s", node.value) and node.value.split("/")[-1] in FILE_NAMES:
                wrong.append(f"{name}:{node.lineno} spells {node.value!r}")
            for folder in folders_in(node):
                wrong.append(f"{name}:{node.lineno} spells the folder {folder!r}")
    return wrong


def folders_in(node):
    """Folders of a run that a path expression spells: `x / "folder"`, `join(x, "folder")`, f"{x}/folder"."""
    parts = []
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        parts = strings(node.right) if isinstance(node.right, ast.Constant | ast.JoinedStr) else []
    elif isinstance(node, ast.Call) and called(node) in JOINS:
        literals = [argument for argument in node.args if isinstance(argument, ast.Constant | ast.JoinedStr)]
        parts = [text for argument in literals for text in strings(argument)]
    elif isinstance(node, ast.JoinedStr):
        texts = [part.value for part in node.values if isinstance(part, ast.Constant)]
        parts = [text for text in texts if re.fullmatch(r"/[\w.]+(/\S*)?", text)]
    return [text for text in parts if text.strip("/").split("/")[0] in FOLDER_NAMES]


def foreign_imports_of_the_model(package=PACKAGE):
    """Imports inside `model/` of anything but its siblings, the standard library and the libraries of the model."""
    wrong = []
    for name, path in modules(package).items():
        if floor(name) == "model":
            for imported in imports(path, package):
                top = imported.split(".")[0]
                allowed = top in SHIPPED or top in sys.stdlib_module_names or floor(imported) == "model"
                wrong += [] if allowed else [f"{name} imports {imported}"]
    return wrong


def test_a_module_imports_only_from_floors_below_and_stages_never_each_other():
    assert upward_imports() == []


def test_only_outputs_spells_the_names_of_files_of_a_run():
    assert file_name_literals() == []


def test_the_shipped_model_imports_nothing_else_of_this_package():
    assert foreign_imports_of_the_model() == []


def test_there_is_no_import_circle_lazy_and_type_only_imports_included():
    known = modules()
    graph = {}
    for name, path in known.items():
        targets = set()
        for imported in imports(path):
            target = imported if imported in known else imported.rpartition(".")[0]
            if target in known and target != name:
                targets.add(target)
        graph[name] = targets
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_only_run_and_the_lazy_names_of_packages_import_by_name():
    callers = set()
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            by_name = isinstance(node, ast.Call) and called(node) in IMPORTERS
            renamed = isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} & IMPORTERS
            callers |= {name} if by_name or (renamed and name != "regen_hf.model") else set()
    assert callers == {"regen_hf", "regen_hf.model", "regen_hf.run.stages"}


def test_every_module_has_a_floor_and_the_package_of_stages_imports_nothing():
    names = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}
    assert names - {"__pycache__"} == set(FLOOR)
    assert imports(PACKAGE / "stages" / "__init__.py") == set()


@pytest.mark.parametrize(
    ("file", "code", "rule"),
    [
        ("schema.py", "from .run import Run\n", upward_imports),
        ("stages/ratings/build.py", "def f():\n    from ...hub import publishing\n", upward_imports),
        ("stages/ratings/build.py", "from ..narratives.settings import NarrativesConfig\n", upward_imports),
        ("metrics/a.py", "if TYPE_CHECKING:\n    from ..stages.judge import pairs\n", upward_imports),
        ("cards/a.py", 'importlib.import_module("regen_hf.run.stages")\n', upward_imports),
        ("cards/a.py", 'importlib.import_module(name="..run.stages", package=__package__)\n', upward_imports),
        ("cards/a.py", '__import__("regen_hf.run")\n', upward_imports),
        ("stages/ratings/build.py", 'path = run / "evaluation" / "results.json"\n', file_name_literals),
        ("cards/a.py", 'path = folder / "predictions.parquet"\n', file_name_literals),
        ("cards/a.py", 'path = run / "embeddings"\n', file_name_literals),
        ("cards/a.py", 'path = run / f"embeddings/{split}"\n', file_name_literals),
        ("cards/a.py", 'path = os.path.join(run, "evaluation")\n', file_name_literals),
        ("cards/a.py", 'path = run.joinpath("evaluation", "x")\n', file_name_literals),
        ("cards/a.py", 'path = f"{run}/dataset"\n', file_name_literals),
        ("cards/a.py", 'path = folder / "vectors.npy"\n', file_name_literals),
        ("model/modeling_regen.py", "from ..schema import TASKS\n", foreign_imports_of_the_model),
        ("model/modeling_regen.py", "def f():\n    import pandas\n", foreign_imports_of_the_model),
        ("model/modeling_regen.py", 'import_module("pandas")\n', foreign_imports_of_the_model),
    ],
)
def test_a_planted_violation_is_found(tmp_path, file, code, rule):
    assert rule(tmp_path) == []
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    assert len(rule(tmp_path)) >= 1


def test_a_planted_import_in_the_real_package_is_found(tmp_path):
    path = tmp_path / "metrics" / "bootstrap.py"
    path.parent.mkdir(parents=True)
    path.write_text((PACKAGE / "metrics" / "bootstrap.py").read_text(encoding="utf-8"))
    assert upward_imports(tmp_path) == []
    path.write_text(path.read_text(encoding="utf-8") + "\n\ndef late():\n    from ..run import Run\n")
    assert upward_imports(tmp_path) == ["regen_hf.metrics.bootstrap imports regen_hf.run.Run"]


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


def test_opening_a_run_imports_settings_and_no_code_of_stages(tmp_path):
    code = f"import sys; from regen_hf.run import Run; Run({str(tmp_path / 'run')!r}); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "regen_hf.stages.training.settings" in loaded
    stages = [name for name in loaded if name.startswith("regen_hf.stages.") and name.count(".") > 2]
    assert [name for name in stages if not name.endswith(".settings")] == []
    assert "torch" not in loaded


def test_the_tests_mirror_the_package():
    folders = {path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")}
    assert [str(folder) for folder in sorted(folders) if not list((ROOT / "tests" / folder).glob("test_*.py"))] == []
