"""Study specs in files: TOML or JSON with the names that `asktell study show --json` prints."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from asktell.cli.document import Draft, Malformed, draft


def read(path: Path) -> Draft:
    """Return the study that a file describes.

    Raises:
        Malformed: It is neither TOML nor JSON, or describes no study; the message names the file and the place.
        OSError: It cannot be read.
    """
    try:
        text = path.read_text("utf-8")
        return draft(json.loads(text) if path.suffix == ".json" else tomllib.loads(text))
    except Malformed as error:
        raise Malformed(f"{path}: {error}") from error
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise Malformed(f"{path} is not {kind}: {error}") from error
