"""A disk that is full while a stage writes: a sentence, nothing half-written, and the same command resumes."""

import errno
import shutil
import subprocess
import tempfile

import pytest

from regen_hf import outputs
from regen_hf.cli import main
from regen_hf.run.full_disk import full_disk

WRITERS = ("sequences", "narratives", "ratings", "dataset", "embeddings", "train", "evaluate", "next-item", "grounding")
WRITERS += ("attribution", "figures")
FULL = "The disk of {} is full: 0 bytes are left{}. Free space and run the same command again to resume."


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
@pytest.mark.parametrize("command", [*WRITERS, "export"])
def test_a_full_disk(finished_run, disk, capsys, command):
    options = ["--to", "vllm"] if command == "export" else []
    # Enough for the copy and some more: the file system counts pages.
    folder = disk(size(finished_run) + 2**26) / "run"
    shutil.copytree(finished_run, folder)
    out = outputs.folder(folder, command) if command != "export" else folder / outputs.EXPORT / "vllm"
    needed = size(folder / "model" if command == "export" else out)  # 0 for a stage that no other one needs
    shutil.rmtree(out, ignore_errors=True)
    filler = folder.parent / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(folder).free - max(needed // 2, 2**12)))
    words = [command, str(folder), *options]
    assert main(words) == 1
    err = capsys.readouterr().err
    assert "is full: " in err
    assert "run the same command again" in err
    assert not out.exists()
    filler.unlink()
    assert main(words) == 0
    assert any(out.iterdir())


def test_an_error_names_the_full_disk(disk, tmp_path):
    folder = disk(2**20) / "out"
    (folder.parent / "filler").write_bytes(bytes(2**20))
    # Errors without a path: the disk with the least space among the paths of the command and the caches.
    full = OSError(errno.ENOSPC, "No space left on device")
    assert full_disk(full, [tmp_path, folder]) == FULL.format(folder, "")
    assert full_disk(RuntimeError("database or disk is full"), [folder]) == FULL.format(folder, "")
    assert full_disk(chained(ValueError("bad"), full), [folder]) == FULL.format(folder, "")
    # An error with a path names it, whatever the command writes to.
    named = OSError(errno.ENOSPC, "No space left on device", str(folder / "file"))
    assert full_disk(named, [tmp_path]) == FULL.format(folder / "file", "")
    # The path of another error in the chain is not that of the full disk.
    missing = FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path / "other"))
    assert full_disk(chained(full, missing), [folder]) == FULL.format(folder, "")


def test_other_errors_on_a_full_disk_keep_their_text_or_traceback(disk, tmp_path):
    folder = disk(2**20) / "out"
    (folder.parent / "filler").write_bytes(bytes(2**20))
    short = OSError("1000 requested and 0 written")  # numpy
    reason = f", and the command stopped with: {short}"
    assert full_disk(short, [folder]) == FULL.format(folder, reason)
    assert full_disk(short, [tmp_path]) is None
    assert full_disk(KeyError("a bug"), [folder]) is None


def test_a_machine_whose_only_disk_is_full(disk, monkeypatch):
    folder = disk(2**20)
    (folder / "filler").write_bytes(bytes(2**20))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(folder)])
    with pytest.raises(FileNotFoundError) as failed:
        tempfile.gettempdir()
    message = full_disk(failed.value, [folder / "run"])
    assert message == FULL.format(folder / "run", f", and the command stopped with: {failed.value}")


def chained(error, cause):
    """`error` as it is raised from `cause`."""
    error.__cause__ = cause
    return error


@pytest.mark.slow
@pytest.mark.parametrize("words", [["report", "{run}"], ["score", "{run}/evaluation/predictions.parquet"]])
def test_a_full_disk_under_commands_that_are_no_stage(finished_run, disk, capsys, words):
    folder = disk(size(finished_run) + 2**26) / "run"
    shutil.copytree(finished_run, folder)
    for left in (folder / outputs.REPORT, *folder.glob("evaluation/*_scores")):
        left.unlink(missing_ok=True)
    filler = folder.parent / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(folder).free))
    words = [word.format(run=folder) for word in words]
    before = set(folder.rglob("*.*"))
    assert main(words) == 1
    assert f"The disk of {folder}" in capsys.readouterr().err
    assert {path for path in folder.rglob("*.*") if path.is_file()} <= before
    filler.unlink()
    assert main(words) == 0
