"""HEAD of what is a file: its size is asked of the disk, and no byte of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import anyio
import pytest
from starlette.testclient import TestClient

from streamer.api.app import create_app, web_folder
from streamer.settings import Settings


def test_head_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tmp_path / "vid_1.mp4"
    clip.write_bytes(bytes(1000))
    clips: Any = SimpleNamespace(get=lambda id: None, file=lambda video: clip)
    app = create_app(Settings(), cast(Any, None), cast(Any, None), clips)

    def refused(*_: object, **options: object) -> NoReturn:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(anyio, "open_file", refused)
    with TestClient(app, "http://localhost") as client:
        content = "/v1/videos/vid_1/content"
        whole = client.head(content)
        assert (whole.status_code, whole.headers["content-length"], whole.content) == (200, "1000", b"")
        part = client.head(content, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.headers["content-range"]) == (206, "bytes 10-19/1000")
        assert client.head(content, headers={"Range": "bytes=5000-"}).status_code == 416
        script = client.head("/js/app.js")
        size = (web_folder() / "js" / "app.js").stat().st_size
        assert (script.status_code, script.headers["content-length"]) == (200, str(size))
        assert script.headers["cache-control"] == "no-cache"
        assert client.head("/nothing").status_code == 404
        with pytest.raises(AssertionError, match="opened"):
            client.get(content)
