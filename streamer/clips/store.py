"""Where clips lie on disk: one MP4 and one record each, in a folder that no clip outgrows."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from pathlib import Path

import msgspec

from streamer.clips.video import Record
from streamer.media.clip_file import PART

logger = logging.getLogger(__name__)

RECORD = ".json"
FILE = ".mp4"


class Store:
    """Files and records by the clip's id. Blocking: for a thread that may wait.

    Args:
        folder: Where; what is in it from an earlier server is taken up. None: a folder of its own, which `close`
            removes.

    Raises:
        OSError: the disk, in every method but `close`.
    """

    def __init__(self, folder: Path | None) -> None:
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="streamer-videos-"))
        self.folder.mkdir(parents=True, exist_ok=True)

    def load(self) -> list[Record]:
        """The records there are, oldest first. Unreadable ones and what is left of unfinished files is removed."""
        records = []
        for path in self.folder.glob(f"vid_*{RECORD}"):
            try:
                record = msgspec.json.decode(path.read_bytes(), type=Record)
                if record.id != path.stem:
                    raise msgspec.ValidationError(f"it is the record of {record.id}")
                records.append(record)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                logger.warning("%s: not a record of a clip, removed: %s", path, error)
                self.remove(path.stem)
        for path in self.folder.glob(f"vid_*{PART}"):
            path.unlink(missing_ok=True)
        return sorted(records, key=lambda record: record.created_at)

    def path(self, id: str) -> Path:
        """The clip's MP4."""
        return self.folder / f"{id}{FILE}"

    def save(self, record: Record) -> None:
        """Keep a record; it is whole or the old one, whatever happens meanwhile."""
        path = self.folder / f"{record.id}{RECORD}"
        part = path.with_name(path.name + PART)
        # It holds the token that deletes the clip.
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(record))
        os.replace(part, path)

    def remove(self, id: str) -> None:
        """Forget a clip; whoever is reading its file may read on."""
        for ending in (RECORD, FILE):
            (self.folder / f"{id}{ending}").unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the folder, if it is this store's own."""
        if self._temporary:
            with contextlib.suppress(OSError):
                shutil.rmtree(self.folder)
