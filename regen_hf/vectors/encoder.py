"""The sentence encoder of content vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigError, MissingPackageError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def load_encoder(name: str) -> SentenceTransformer:
    """The sentence-transformers model `name`, a name on the Hub or a folder."""
    from ..model import loading

    try:
        return loading.load_encoder(name)
    except ImportError:
        raise MissingPackageError("sentence-transformers") from None
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"The encoder {name!r} could not be loaded: {error} Set the name or folder of a sentence-transformers "
            "model, or none for a small one trained offline."
        ) from error
