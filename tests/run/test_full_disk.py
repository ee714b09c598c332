"""A disk that is full while a stage writes: a sentence, nothing half-written, and the same command resumes."""

import shutil
import subprocess

import pytest

from regen_hf import outputs
from regen_hf.cli import main


@pytest.fixture
def disk(tmp_path):
    """A function that mounts a file system in memory of some bytes, at the same folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
        return folder

    yield mount
    subprocess.run(["umount", "-l", folder], capture_output=True)


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["sequences", "narratives", "ratings", "dataset", "embeddings", "train", "evaluate", "figures", "export"]
)
def test_a_full_disk(finished_run, disk, capsys, command):
    options = ["--to", "vllm"] if command == "export" else []
    # Enough for the copy and some more: the file system counts pages.
    folder = disk(size(finished_run) + 2**26) / "run"
    shutil.copytree(finished_run, folder)
    out = outputs.folder(folder, command) if command != "export" else folder / outputs.EXPORT / "vllm"
    needed = size(folder / "model" if command == "export" else out)
    shutil.rmtree(out, ignore_errors=True)
    filler = folder.parent / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(folder).free - max(needed // 2, 2**13)))
    words = [command, str(folder), *options]
    assert main(words) == 1
    err = capsys.readouterr().err
    assert "is full: " in err
    assert "run the same command again" in err
    assert not out.exists()
    filler.unlink()
    assert main(words) == 0
    assert any(out.iterdir())
