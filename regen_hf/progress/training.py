"""A progress bar with the loss, which replaces the log lines of a trainer."""

from __future__ import annotations

from typing import Any

from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from . import Bar


class TrainingBar(TrainerCallback):
    """Shows steps and the latest loss on stderr, in the main process only."""

    def __init__(self, about: str) -> None:
        self.about = about
        self.bar: Bar | None = None
        self.shown: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar at the step from which the training resumes."""
        if state.is_world_process_zero:
            self.bar = Bar(about=self.about, total=state.max_steps, initial=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Show the latest loss, and the latest gap between another user's history and the own one."""
        if self.bar is not None and logs:
            for key, name in {"loss": "loss", "history_gap": "gap"}.items():
                if key in logs:
                    self.shown[name] = f"{float(logs[key]):.3f}"
            self.bar.set_postfix(self.shown, refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


def show_bar(trainer: Trainer, about: str) -> None:
    """Replace the output of `trainer` by one progress bar."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(TrainingBar(about))
