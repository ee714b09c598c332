"""Shared worlds: a tiny run of every stage, made once, and copied by tests that change it."""

import gc
import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from tests.forked import Forks
from tests.paths import SHARED_DATA

# Read when the libraries are imported: no test may reach or fill the caches of the user who runs them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tiny tensors: a second thread waits more than it works, and the tests run in several processes as it is.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# With Python's default threshold, collecting all tests takes 20.8 s of CPU in place of 16.6 s.
gc.set_threshold(100_000)


TINY = {
    "sequences": {"sample": True},
    "sample": {"shoppers": 160, "items": 64},
    "embeddings": {"cf_dim": 12, "content_dim": 24, "content_steps": 20},
    "training": {
        "max_steps": 12,
        "batch_size": 8,
        "hidden_size": 32,
        "num_layers": 2,
        "vocab_size": 600,
        "save_steps": 4,
    },
    "evaluation": {"users": 6, "max_new_tokens": 24},
    "attribution": {"points": 40, "users": 2, "tested_users": 4},
    "figures": {"dpi": 50},
}
"""Settings of a world that every stage passes in seconds. Widths differ from each other and from all counts."""


def pytest_collection_modifyitems(items):
    """Files with slow tests first: side by side with others, the last one to end is then a short one."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("spark")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    """The garbage collector skips the imported modules from here on."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _fresh_caches(tmp_path_factory):
    """Caches of `datasets` and the Hub client in a folder of this session."""
    import datasets
    import huggingface_hub.constants

    home = tmp_path_factory.mktemp("hf")
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HOME", str(home))
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
    patch.setattr(datasets.config, "HF_MODULES_CACHE", str(home / "modules"))
    patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    """DuckDB as the stages open it; opening one takes longer than most of what it is asked here."""
    from regen_hf.engines import DuckDB

    with DuckDB("1GB", tmp_path_factory.mktemp("spill")) as opened:
        yield opened


@pytest.fixture(scope="session")
def _reload_check_in_a_fork():
    """The check after each training loads the model in a fork of a process that has imported the libraries.

    The tests of the check itself start a new interpreter. The load takes 0.4 s of CPU in a fork in place of 5.5 s.
    """
    from regen_hf.stages.training import reload_check

    forks = Forks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reload_check, "subprocess", forks)
        yield
    forks.close()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, _reload_check_in_a_fork):
    """A tiny run with every stage done; do not change it. The first process builds it, the others copy it."""
    from regen_hf.run import Run

    folder = tmp_path_factory.mktemp("world") / "tiny"
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny"
    with FileLock(shared.with_suffix(".lock")):
        if shared.exists():
            shutil.copytree(shared, folder)
        else:
            run = Run(folder, TINY)
            with run.locked():
                run.save()
                run.build_all()
            shutil.copytree(folder, shared.with_suffix(".new"))
            shared.with_suffix(".new").rename(shared)  # complete or absent
    return folder


@pytest.fixture
def tiny_run(finished_run, tmp_path):
    """A copy of the finished tiny run that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "tiny"))


@pytest.fixture(scope="session")
def shared_data():
    """The development data beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the development data are not beside this checkout (../shared/data)")
    return SHARED_DATA


@pytest.fixture(scope="module")
def processor(finished_run):
    """The processor of the tiny run; do not change it."""
    from regen_hf.model.processing_regen import RegenProcessor

    return RegenProcessor.from_pretrained(finished_run / "model")


@pytest.fixture(scope="module")
def histories(finished_run):
    """The vectors of the train users of the tiny run."""
    from regen_hf.vectors.histories import Histories

    return Histories.of(finished_run, "train")
