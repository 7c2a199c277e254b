"""Files: read safely, written whole or not at all.

A file is written under a temporary name beside its place and renamed, so that a reader sees the old or the new one and
never a part.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vaelab.core.errors import UserError

__all__ = [
    "DISK_FULL",
    "REPAIR_HINT",
    "atomic_write",
    "cache_folder",
    "read_json",
    "remove_stale_temp_files",
    "write_json",
    "write_text",
]

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

REPAIR_HINT = "delete the run's folder and train it again, or restore the file from a copy"


def cache_folder() -> Path:
    """$VAELAB_CACHE, else the folder that the platform has for such things."""
    if root := os.environ.get("VAELAB_CACHE"):
        return Path(root).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "vaelab" / "Cache"
    default = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or default) / "vaelab"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, which takes its place once the block has ended well."""
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # as the user's umask has it, whoever wrote the file
        temporary.replace(path)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise UserError(f"cannot write {path}: {error.strerror or error}; give another place with --out") from None
        raise UserError(
            f"no room to write {path}: {error.strerror}; what was there is unharmed.\n"
            "Free some space and repeat the command, which goes on where it was, or give another place with --out."
        ) from None
    finally:
        with suppress(OSError):  # where the folder itself cannot be used, that has been said
            temporary.unlink(missing_ok=True)


def remove_stale_temp_files(folder: Path) -> None:
    """Remove what a process killed while it was writing has left in a folder."""
    for file in folder.glob(".*-????????.*"):
        file.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, for people to read."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path, *required: str) -> dict[str, Any]:
    """Read a JSON object of a run, which has the `needed` names; a damaged file is the user's to mend."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: is {path.parent} the folder of a run?") from None
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{path} is damaged; {REPAIR_HINT}") from None
    lacking = [name for name in required if name not in value] if isinstance(value, dict) else ["an object"]
    if lacking:
        raise UserError(f"{path} is damaged (it lacks {', '.join(lacking)}); {REPAIR_HINT}")
    return value
