"""The encoder behind `similarity`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import outputs


def similarity_encoder(run: Path, named: str | None) -> tuple[str, Any]:
    """The name to report of the encoder behind `similarity`, that `named` or the run's own, and the encoder."""
    from ..vectors.encoder import load_encoder

    named = named or outputs.manifest(run, "embeddings")["config"]["content_encoder"]
    if named is not None:
        return Path(named).name if Path(named).is_absolute() else named, load_encoder(named)
    own = "content_encoder of this run (static, trained on its train users)"
    return own, load_encoder(str(outputs.folder(run, "embeddings") / outputs.CONTENT_ENCODER))
