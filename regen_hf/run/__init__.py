"""The run folder: which stages there are, which are fresh, and how one is redone without losing anything.

A stage writes into a temporary folder that becomes `RUN/<folder>` by one rename, with a `manifest.json` in it. A stage
is fresh while the fingerprint in its manifest equals the one computed from its settings, its raw files' content and the
fingerprints of the stages it reads: so an edited setting redoes exactly the stages that depend on it. What a stage
keeps for itself while it works (checkpoints) lies in `RUN/.work`, survives a kill, and is handed back to the same work
only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import __version__, prompts
from ..config import fingerprint, read_yaml
from ..errors import ConfigError, RunError
from . import files
from .stages import EXTRAS, STAGES, Config, Stage, config_class, make_config, plain, versions

__all__ = [
    "EXTRAS",
    "FORMAT",
    "STAGES",
    "Config",
    "Run",
    "Stage",
    "config_class",
    "describe",
    "make_config",
    "plain",
    "read_manifest",
    "versions",
]

FORMAT = 1
"""Layout of a run folder. A folder of another number is refused, never guessed at."""


class Run:
    """A run folder and its settings.

    Args:
        folder: the run folder; it is made when the first stage writes.
        overrides: settings by section and key, written over those that the folder holds.

    Raises:
        RunError: the folder belongs to something else, or to another version of its layout.
        ConfigError: a setting does not exist or is refused.
    """

    def __init__(self, folder: str | Path, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.folder = Path(folder)
        self._check_folder()
        saved = self.folder / "config.yaml"
        values = read_yaml(saved) if saved.exists() else {}
        for name, keys in (overrides or {}).items():
            before = values.get(name) or {}
            if not isinstance(before, Mapping):
                raise ConfigError(f"Section {name!r} of {saved} holds {before!r}, expected 'key: value' under it.")
            if not isinstance(keys, Mapping):
                raise ConfigError(f"Section {name!r} was given {keys!r}, expected settings as 'key: value'.")
            values[name] = {**before, **keys}
        self.config = files.absolute(make_config(values))
        self._check_source()
        self._hashes: dict[str, str] = {}

    def _check_folder(self) -> None:
        if self.folder.is_file():
            raise RunError(f"{self.folder} is a file, expected a run folder. Name a new folder.")
        about = self.folder / "run.json"
        if not about.exists():
            if self.folder.is_dir() and any(
                path.name not in (".work", "config.yaml", "config.yaml.new", "run.json.new")
                for path in self.folder.iterdir()
            ):
                raise RunError(f"{self.folder} holds files but is not a run folder. Name a new or an empty folder.")
            return
        try:
            made = json.loads(about.read_text(encoding="utf-8"))
            layout = made["format"]
        except (ValueError, TypeError, KeyError):
            raise RunError(f"{about} is damaged. Name a new folder, or delete this one.") from None
        if layout != FORMAT:
            raise RunError(
                f"{self.folder} was made by regen-hf {made.get('version', '?')} with layout {layout}; this is regen-hf "
                f"{__version__} with layout {FORMAT}. Name a new folder, or install the version that made it."
            )

    @property
    def stages(self) -> list[Stage]:
        """The stages of this run in order: those that lead on from its source, raw files, the sample or the release."""
        if self.config["release"].from_release:
            others = {"sample", "sequences", "narratives", "ratings"}
        else:
            others = {"release"} if self.config["sequences"].sample else {"release", "sample"}
        return [stage for stage in STAGES.values() if stage.command not in others]

    def _check_source(self) -> None:
        released, raw = self.config["release"].from_release, self.config["sequences"]
        if released and (raw.sample or raw.reviews or raw.items):
            raise ConfigError(
                f"{self.folder} was given from_release together with reviews, items or sample: a run has one source. "
                "Name a new run folder for the release."
            )
        other = "sequences" if released else "release"
        if (self.folder / other).exists():
            raise RunError(f"{self.folder} holds `{other}`, made from another source. Name a new run folder.")

    def reads(self, stage: Stage) -> list[Stage]:
        """The stages whose output `stage` reads in this run."""
        known = [other for other in self.stages if other.command in stage.reads]
        return [other for other in known if self.manifest(other)] if stage.reads_what_is_there else known

    def settings(self, stage: Stage) -> dict[str, Any]:
        """The settings of `stage` that its output depends on; of files outside the run only their content counts."""
        config = self.config[stage.section]
        kept = {
            field.name: files.setting(field, getattr(config, field.name))
            for field in dataclasses.fields(config)
            if field.metadata.get("affects_output", True)
        }
        if stage.prompts and config.backend != "reference":
            kept["prompts"] = prompts.hashes(*stage.prompts)
        settings: dict[str, Any] = json.loads(json.dumps(kept))
        return settings

    def inputs(self, stage: Stage) -> dict[str, Any]:
        """What `stage` reads: fingerprints of stages, content hashes of files outside the run.

        Files that are gone count as they were when the stage read them: a run stays of use without its raw files.

        Raises:
            InputError: a file does not exist, and the stage has not read it before.
        """
        manifest = self.manifest(stage)
        known = manifest["inputs"]["files"] if manifest else {}
        return {
            "stages": {other.command: self.fingerprint(other) for other in self.reads(stage)},
            "files": files.read(self.config[stage.section], known, self._hashes),
        }

    def fingerprint(self, stage: Stage) -> str:
        """The hash of all that the output of `stage` depends on."""
        inputs = self.inputs(stage)
        contents = sorted([file["kind"], file["sha256"]] for file in inputs["files"].values())
        return fingerprint([FORMAT, stage.command, self.settings(stage), inputs["stages"], contents])

    def manifest(self, stage: Stage) -> dict[str, Any] | None:
        """The manifest that `stage` left in this run, None where there is none."""
        return read_manifest(self.folder / stage.folder)

    def is_fresh(self, stage: Stage) -> bool:
        """Whether the output on disk is what the settings and inputs of now would give."""
        manifest = self.manifest(stage)
        return manifest is not None and manifest["fingerprint"] == self.fingerprint(stage)

    def check(self, until: str = "figures") -> None:
        """Check that the files outside the run that the stages up to the command `until` read are there.

        Raises:
            InputError: one is not.
            RunError: this run has no such stage.
        """
        for stage in self._until(until):
            self.inputs(stage)

    def check_sources(self) -> None:
        """Check that the settings of a run that has no sequences yet name what to make them of.

        Raises:
            InputError: they do not.
        """
        if STAGES["sequences"] in self.stages and self.manifest(STAGES["sequences"]) is None:
            from ..sequences import check_sources

            check_sources(self.config["sequences"])

    def need(self, stage: Stage) -> None:
        """Check that all that `stage` reads is there and fresh.

        Raises:
            RunError: a stage is missing or stale; the message names the command that makes it.
        """
        there = self.reads(stage)
        if stage.reads_what_is_there and not there:
            raise RunError(
                f"There is nothing for `{stage.command}` to read in {self.folder} yet. "
                f"Run first: regen run {self.folder}"
            )
        for other in there:
            if not self.is_fresh(other):
                state = "is out of date" if self.manifest(other) else "has not been made"
                raise RunError(
                    f"`{stage.command}` reads the output of `{other.command}`, which {state} in {self.folder}. "
                    f"Run `regen {other.command} {self.folder}` first, or `regen run {self.folder}` for all stages."
                )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process, so that two of them never write one folder; a dead process holds nothing."""
        from filelock import FileLock, Timeout

        work = self.folder / ".work"
        try:
            work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"The run folder {self.folder} cannot be made: {error.strerror}.") from None
        lock = FileLock(work / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"Another regen process is at work in {self.folder}. Wait for it, or stop it.") from None
        try:
            yield
        finally:
            lock.release()

    def save(self) -> None:
        """Write the settings and the layout's number into the folder, each file atomically."""
        import yaml

        header = "# Settings of this run. An edited value redoes the stages that depend on it: regen run FOLDER\n"
        _write_text(
            self.folder / "config.yaml", header + yaml.safe_dump(plain(self.config), sort_keys=False, width=110)
        )
        _write_text(self.folder / "run.json", json.dumps({"format": FORMAT, "version": __version__}) + "\n")

    def keep(self, stage: Stage) -> Path:
        """Where `stage` keeps unfinished work, for its present settings and inputs alone."""
        return self.folder / ".work" / f"{stage.folder}.keep" / self.fingerprint(stage)

    def build(self, stage: Stage) -> bool:
        """Make the output of `stage` unless it is fresh; True if it was made.

        Raises:
            RegenError: a user's mistake, told by the stage. The folder is then as it was before.
        """
        self.need(stage)
        if self.is_fresh(stage):
            return False
        mark = self.fingerprint(stage)
        target, work = self.folder / stage.folder, self.folder / ".work"
        new, keep = work / f"{stage.folder}.new", self.keep(stage)
        finished = read_manifest(new)
        if finished is None or finished["fingerprint"] != mark:  # else killed between the two renames below
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            for other in keep.parent.glob("*") if keep.parent.exists() else ():
                if other != keep:
                    shutil.rmtree(other)
            keep.mkdir(parents=True, exist_ok=True)
            started = time.monotonic()
            module = importlib.import_module(stage.code)
            counts = module.build(run=self.folder, out=new, work=keep, config=self.config[stage.section])
            manifest = {
                "stage": stage.command,
                "fingerprint": mark,
                "config": plain({stage.section: self.config[stage.section]})[stage.section],
                "inputs": self.inputs(stage),
                "counts": counts,
                "seconds": round(time.monotonic() - started, 2),
                "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "versions": versions(stage),
            }
            _write_text(new / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        old = work / f"{stage.folder}.old"
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        new.rename(target)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(keep.parent, ignore_errors=True)
        return True

    def build_all(self, until: str = "figures") -> None:
        """Make every stage up to the command `until` that is not fresh, in order, telling each on stderr."""
        stages = self._until(until)
        for number, stage in enumerate(stages, 1):
            self.tell(stage, f"[{number}/{len(stages)}] ")

    def _until(self, command: str) -> list[Stage]:
        commands = [stage.command for stage in self.stages]
        if command not in commands:
            raise RunError(
                f"{self.folder} is made from the official release, which has what `{command}` makes. "
                f"Its stages are: {', '.join(commands)}."
            )
        return self.stages[: commands.index(command) + 1]

    def tell(self, stage: Stage, prefix: str = "") -> None:
        """Build `stage`, with a line on stderr before and after."""
        print(f"{prefix}{stage.command}: {stage.about}", file=sys.stderr, flush=True)  # noqa: T201
        made = self.build(stage)
        manifest = self.manifest(stage) or {}
        counts = describe(manifest.get("counts", {}))
        print(  # noqa: T201
            f"      {'done in ' + str(manifest.get('seconds')) + ' s' if made else 'fresh'}: {counts}",
            file=sys.stderr,
            flush=True,
        )


def describe(counts: Mapping[str, Any]) -> str:
    """The plain numbers among a stage's counts, in a line.

    >>> describe({"users": 6000, "detail": {"a": 1}, "loss": 0.51234})
    'users 6,000, loss 0.512'
    """
    numbers = {name: value for name, value in counts.items() if isinstance(value, int | float)}
    return ", ".join(
        f"{name.replace('_', ' ')} {value:,}" if isinstance(value, int) else f"{name.replace('_', ' ')} {value:.3g}"
        for name, value in numbers.items()
    )


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest in the output `folder` of a stage, None where there is no whole one."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        whole = {"fingerprint", "inputs", "counts", "seconds"} <= manifest.keys()
        whole = whole and {"stages", "files"} <= manifest["inputs"].keys()
    except (OSError, ValueError, TypeError, AttributeError):
        return None  # a folder without a whole manifest is no output of a finished stage
    return manifest if whole else None


def _write_text(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
