"""The run folder: its stages, which of them are fresh, and how a stage is run again without losing anything.

A stage writes into a temporary folder that becomes `RUN/<folder>` by one rename, with a `manifest.json` in it. A stage
is fresh while the fingerprint in its manifest equals the one computed from its settings, the content of its raw files
and the fingerprints of the stages it reads. So an edited setting reruns only the stages that depend on it. Unfinished
work of a stage, such as checkpoints, stays in `RUN/.work` when the process is killed, and is reused only for identical
settings and inputs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import outputs, progress, prompts
from ..config import fingerprint, read_yaml
from ..errors import ConfigError, MissingPackageError, RunError, require
from ..version import __version__
from . import files
from .stages import STAGES, Config, Stage, config_class, make_config, plain

__all__ = [
    "FORMAT",
    "STAGES",
    "Config",
    "Run",
    "Stage",
    "config_class",
    "describe",
    "make_config",
    "not_a_run",
    "plain",
]

FORMAT = 1
"""Version of the layout of a run folder. A folder with another version raises RunError."""


class Run:
    """A run folder and its settings.

    Args:
        folder: the run folder; it is created when the first stage writes.
        overrides: settings by section and key, which replace those of the folder.

    Raises:
        RunError: the folder is not a run folder, or has another version of the layout.
        ConfigError: a setting does not exist or is invalid.
    """

    def __init__(self, folder: str | Path, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.folder = Path(folder)
        self._check_folder()
        saved = self.folder / outputs.CONFIG
        values = read_yaml(saved) if saved.exists() else {}
        for name, keys in (overrides or {}).items():
            before = values.get(name) or {}
            if not isinstance(before, Mapping):
                raise ConfigError(f"Section {name!r} of {saved} holds {before!r}, expected 'key: value' under it.")
            if not isinstance(keys, Mapping):
                raise ConfigError(f"Section {name!r} was given {keys!r}, expected settings as 'key: value'.")
            values[name] = {**files.still_true(name, before, keys), **keys}
        self.config = files.absolute(make_config(values))
        self._check_source()
        self._hashes: dict[str, str] = {}

    def _check_folder(self) -> None:
        if self.folder.is_file():
            raise RunError(f"{self.folder} is a file, expected a run folder. Name a new folder.")
        about = self.folder / outputs.RUN
        if not outputs.is_run(self.folder):
            own = (outputs.WORK, outputs.CONFIG, f"{outputs.CONFIG}.new", f"{outputs.RUN}.new")
            if self.folder.is_dir() and any(path.name not in own for path in self.folder.iterdir()):
                raise RunError(not_a_run(self.folder, "Name a new or an empty folder."))
            return
        try:
            created = json.loads(about.read_text(encoding="utf-8"))
            layout = created["format"]
        except (ValueError, TypeError, KeyError):
            raise RunError(f"{about} is damaged. Name a new folder, or delete this one.") from None
        if layout != FORMAT:
            raise RunError(
                f"{self.folder} was created by regen-hf {created.get('version', '?')} with layout {layout}; this is "
                f"regen-hf {__version__} with layout {FORMAT}. Name a new folder, or install the version that created "
                "it."
            )

    @property
    def stages(self) -> list[Stage]:
        """The stages of `regen run` in order, for the source of this run: raw files, the sample or the release."""
        if self.config["release"].from_release:
            others = {"sample", "sequences", "narratives", "ratings"}
        else:
            others = {"release"} if self.config["sequences"].sample else {"release", "sample"}
        return [stage for stage in STAGES.values() if stage.command not in others and not stage.optional]

    @property
    def finished(self) -> list[Stage]:
        """The stages with a finished output in this run, fresh or stale, in order."""
        optional = [stage for stage in STAGES.values() if stage.optional]
        return [stage for stage in [*self.stages, *optional] if self.manifest(stage)]

    def _check_source(self) -> None:
        released, raw = self.config["release"].from_release, self.config["sequences"]
        if released and (raw.sample or raw.reviews or raw.items):
            raise ConfigError(
                f"{self.folder} has from_release together with reviews, items or sample, expected one source per run. "
                "Name a new run folder for the release."
            )
        other = "sequences" if released else "release"
        if outputs.folder(self.folder, other).exists():
            raise RunError(f"{self.folder} contains `{other}` from another source. Name a new run folder.")

    def reads(self, stage: Stage) -> list[Stage]:
        """The stages whose output `stage` reads in this run."""
        known = [other for other in self.stages if other.command in stage.reads]
        if stage.reads_available:
            return [other for other in known if self.manifest(other) and not self.skips(other)]
        return known + [STAGES[command] for command in stage.reads_optional if self.is_fresh(STAGES[command])]

    def skips(self, stage: Stage) -> bool:
        """Whether `regen run` skips `stage`: it needs texts, and the model is trained to rank items only."""
        return stage.reads_texts and not self.config["training"].tasks

    def optional(self, stage: Stage) -> dict[str, list[str]]:
        """The commands of the optional inputs that are fresh, as an argument of the code of `stage`, if it has any."""
        fresh = [command for command in stage.reads_optional if self.is_fresh(STAGES[command])]
        return {"optional": fresh} if stage.reads_optional else {}

    def left_out(self, stage: Stage) -> str:
        """A line on the optional inputs that `stage` leaves out; empty if it leaves out none."""
        parts = [
            f"`{command}`, which is {'stale' if self.manifest(STAGES[command]) else 'missing'}"
            for command in stage.reads_optional
            if not self.is_fresh(STAGES[command])
        ]
        return f"without the optional output of {', '.join(parts)}" if parts else ""

    def settings(self, stage: Stage) -> dict[str, Any]:
        """The settings of `stage` that its output depends on; files outside the run count by their content only."""
        config = self.config[stage.section]
        kept = {
            field.name: files.setting(field, getattr(config, field.name))
            for field in dataclasses.fields(config)
            if field.metadata.get("affects_output", True) and not files.is_unset(field, getattr(config, field.name))
        }
        if stage.prompts and config.backend != "reference":
            kept["prompts"] = prompts.hashes(*stage.prompts)
        settings: dict[str, Any] = json.loads(json.dumps(kept))
        return settings

    def inputs(self, stage: Stage) -> dict[str, Any]:
        """The inputs of `stage`: fingerprints of stages, content hashes of files outside the run.

        A missing input keeps its recorded hash, so a run remains usable without its raw files.

        Raises:
            InputError: a file does not exist, and the stage has not read it before.
        """
        manifest = self.manifest(stage)
        known = manifest["inputs"]["files"] if manifest else {}
        return {
            "stages": {other.command: self.fingerprint(other) for other in self.reads(stage)},
            "files": files.read(self.config[stage.section], self.folder, known, self._hashes),
        }

    def fingerprint(self, stage: Stage) -> str:
        """The hash of everything that the output of `stage` depends on."""
        inputs = self.inputs(stage)
        contents = sorted([file["kind"], file["sha256"]] for file in inputs["files"].values())
        return fingerprint([FORMAT, stage.command, self.settings(stage), inputs["stages"], contents])

    def manifest(self, stage: Stage) -> dict[str, Any] | None:
        """The manifest of `stage` in this run, None where there is none."""
        return outputs.read_manifest(outputs.folder(self.folder, stage.command))

    def is_fresh(self, stage: Stage) -> bool:
        """Whether the output on disk belongs to the current settings and inputs."""
        manifest = self.manifest(stage)
        return manifest is not None and manifest["fingerprint"] == self.fingerprint(stage)

    def stale(self, *commands: str) -> str:
        """A sentence on the stages among `commands` that have a stale output; empty if there are none."""
        stale = [
            f"`{stage.command}`"
            for stage in self.finished
            if stage.command in commands and not self.skips(stage) and not self.is_fresh(stage)
        ]
        if not stale:
            return ""
        names = f"{', '.join(stale[:-1])} and {stale[-1]}" if stale[1:] else stale[0]
        return (
            f"The output of {names} in {self.folder} is stale: settings or inputs have changed since. "
            f"Run `regen run {self.folder}` to update it."
        )

    def check(self, until: str = "figures") -> None:
        """Check that the files outside the run exist that the stages up to the command `until` read.

        Raises:
            InputError: a file does not exist.
            RunError: this run has no such stage.
        """
        for stage in self._until(until):
            self.inputs(stage)

    def check_sources(self) -> None:
        """Check that the settings of a run without sequences name the source of the sequences.

        Raises:
            InputError: they name none.
        """
        if STAGES["sequences"] in self.stages and self.manifest(STAGES["sequences"]) is None:
            from ..stages.sequences.settings import check_sources

            check_sources(self.config["sequences"])

    def need(self, stage: Stage) -> None:
        """Check that every stage that `stage` reads is fresh.

        Raises:
            RunError: a stage is missing, stale or skipped; the message names the command to run.
        """
        inputs = self.reads(stage)
        if stage.reads_available and not inputs:
            raise RunError(
                f"{self.folder} has no output that `{stage.command}` can read. Run first: regen run {self.folder}"
            )
        for other in inputs:
            if self.skips(other):
                raise RunError(
                    f"`{stage.command}` reads the output of `{other.command}`, but the model writes no texts "
                    f"(training.tasks is empty). Evaluate its ranking with `regen next-item {self.folder}`."
                )
            if not self.is_fresh(other):
                state = "is stale" if self.manifest(other) else "is missing"
                raise RunError(
                    f"`{stage.command}` reads the output of `{other.command}`, which {state} in {self.folder}. "
                    f"Run `regen {other.command} {self.folder}` first, or `regen run {self.folder}` for all stages."
                )

    def check_packages(self, until: str = "figures") -> None:
        """Check that the optional packages are installed for the stages up to `until` that are not fresh.

        Raises:
            MissingPackageError: some are not.
            ConfigError: a package that a setting needs is not installed.
        """
        missing: dict[str, None] = {}
        for stage in self._until(until):
            if not self.skips(stage) and not self.is_fresh(stage):
                try:
                    self.check_packages_of(stage)
                except MissingPackageError as error:
                    missing |= dict.fromkeys(error.packages)
        require(*missing)

    def check_packages_of(self, stage: Stage) -> None:
        """Check that the optional packages of `stage` are installed, and settings that belong to a library.

        Raises:
            MissingPackageError: some are not.
            ConfigError: a package that a setting needs is not installed, or a library rejects a setting.
        """
        config = self.config[stage.section]
        if hasattr(config, "check_packages"):  # they depend on the settings
            config.check_packages()
        else:
            require(*stage.settings.PACKAGES)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run for this process; the lock of a killed process is released by the system.

        Raises:
            RunError: another process holds the lock, or the folder cannot be created.
        """
        from filelock import FileLock, Timeout

        work = self.folder / outputs.WORK
        try:
            work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"The run folder {self.folder} cannot be created: {error.strerror}.") from None
        lock = FileLock(work / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"Another regen process is running in {self.folder}. Wait for it, or stop it.") from None
        try:
            yield
        finally:
            lock.release()

    def save(self) -> None:
        """Write the settings and the version of the layout into the folder, each file atomically."""
        import yaml

        header = "# Settings of this run. `regen run FOLDER` reruns the stages that depend on an edited value.\n"
        settings = yaml.safe_dump(plain(self.config), sort_keys=False, width=110)
        outputs.write_text(self.folder / outputs.CONFIG, header + settings)
        about = json.dumps({"format": FORMAT, "version": __version__})
        outputs.write_text(self.folder / outputs.RUN, about + "\n")

    def keep(self, stage: Stage) -> Path:
        """The folder for unfinished work of `stage` with its current settings and inputs."""
        return self.folder / outputs.WORK / f"{stage.folder}.keep" / self.fingerprint(stage)

    def not_downloaded(self, stage: Stage) -> list[str]:
        """The URLs among the raw files of `stage` whose files are not in the run."""
        fetched = files.downloads(self.folder)
        return [url for url in files.urls(self.config[stage.section]) if not fetched.is_fetched(url)]

    def download(self, stage: Stage, refresh: bool = False) -> None:
        """Download the raw files of `stage` that were given as URLs and are not in the run.

        With `refresh`, request all of them again and fetch those that changed.

        Raises:
            InputError: a file does not exist, or cannot be downloaded.
        """
        fetched = files.downloads(self.folder)
        for url, option in files.urls(self.config[stage.section]).items():
            fetched.fetch(url, option, refresh)

    def refresh(self, until: str = "figures") -> None:
        """Request the URLs of the stages up to the command `until` again, and fetch the files that changed.

        Raises:
            InputError: a file does not exist any more, or cannot be downloaded.
        """
        for stage in self._until(until):
            self.download(stage, refresh=True)

    def build(self, stage: Stage) -> bool:
        """Run `stage` unless it is fresh; returns whether it ran.

        Raises:
            RegenError: an error that the user can fix. The output of the stage is then unchanged.
        """
        self.need(stage)
        if self.is_fresh(stage):
            return False
        self.check_packages_of(stage)
        self.download(stage)
        mark = self.fingerprint(stage)
        target, work = outputs.folder(self.folder, stage.command), self.folder / outputs.WORK
        new, keep = work / f"{stage.folder}.new", self.keep(stage)
        finished = outputs.read_manifest(new)
        if finished is None or finished["fingerprint"] != mark:  # else it was killed between the two renames below
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            for other in keep.parent.glob("*") if keep.parent.exists() else ():
                if other != keep:
                    shutil.rmtree(other)
            keep.mkdir(parents=True, exist_ok=True)
            started = time.monotonic()
            try:
                config = self.config[stage.section]
                counts = stage.code.build(run=self.folder, out=new, work=keep, config=config, **self.optional(stage))
            except FloatingPointError as error:  # raised by the model
                raise RunError(f"{stage.command} stopped: {error}") from None
            manifest = {
                "stage": stage.command,
                "fingerprint": mark,
                "config": plain({stage.section: self.config[stage.section]})[stage.section],
                "inputs": self.inputs(stage),
                "counts": counts,
                "seconds": round(time.monotonic() - started, 2),
                "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "versions": outputs.versions(stage.settings.PACKAGES),
            }
            outputs.write_json(new / outputs.MANIFEST, manifest)
        old = work / f"{stage.folder}.old"
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        new.rename(target)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(keep.parent, ignore_errors=True)
        return True

    def build_all(self, until: str = "figures") -> None:
        """Run every stage up to the command `until` that is not fresh, in order, with progress on stderr."""
        stages = self._until(until)
        for number, stage in enumerate(stages, 1):
            prefix = f"[{number}/{len(stages)}] "
            if self.skips(stage):
                skipped = "skipped, because the model writes no texts (training.tasks is empty)"
                progress.say(f"{prefix}{stage.command}: {skipped}")
            else:
                self.build_with_progress(stage, prefix)

    def _until(self, command: str) -> list[Stage]:
        if STAGES[command].optional:
            return [*self.stages, STAGES[command]]
        commands = [stage.command for stage in self.stages]
        if command not in commands:
            raise RunError(
                f"{self.folder} reads the official release, which already contains the output of `{command}`. "
                f"The stages of this run are: {', '.join(commands)}."
            )
        return self.stages[: commands.index(command) + 1]

    def build_with_progress(self, stage: Stage, prefix: str = "") -> None:
        """Run `stage`, and show that on stderr."""
        with progress.stage(f"{prefix}{stage.command}", stage.about) as finish:
            if left_out := self.left_out(stage):
                progress.say(left_out)
            built = self.build(stage)
            manifest = self.manifest(stage) or {}
            took = f"done in {manifest.get('seconds')} s" if built else "fresh"
            finish(f"{took}, {describe(manifest.get('counts', {}))}")


def not_a_run(folder: Path, hint: str) -> str:
    """The message for a folder that is not a run folder; `hint` says what to do, unless it is in a run folder."""
    run = next((parent for parent in folder.resolve().parents if outputs.is_run(parent)), None)
    return f"{folder} is not a run folder. " + (
        f"It is a part of the run {run.name}: give that folder." if run else hint
    )


def describe(counts: Mapping[str, Any]) -> str:
    """The plain numbers among a stage's counts and its failed checks, in a line.

    >>> describe({"users": 6000, "detail": {"a": 1}, "loss": 0.51234})
    'users 6,000, loss 0.512'
    >>> describe({"users": 60, "failed_checks": {"profile.words": 2}})
    'users 60, failed checks profile.words 2'
    """
    failed = [f"{name} {number:,}" for name, number in (counts.get("failed_checks") or {}).items()]
    numbers = {name: value for name, value in counts.items() if isinstance(value, int | float)}
    shown = [
        f"{name.replace('_', ' ')} {value:,}" if isinstance(value, int) else f"{name.replace('_', ' ')} {value:.3g}"
        for name, value in numbers.items()
    ]
    return ", ".join([*shown, *([f"failed checks {', '.join(failed)}"] if failed else [])])
