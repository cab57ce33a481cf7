"""The page's HTML, with what a link to it previews: the stream's prompt and its picture (Open Graph)."""

from __future__ import annotations

import asyncio
from html import escape
from pathlib import Path

from fastapi import Request
from fastapi.responses import HTMLResponse

from streamer.api.state import State
from streamer.session.errors import SessionError
from streamer.session.session import Session

PREVIEW_WIDTH = 1024
"""Of the preview's picture: those under 300 pixels are shown as a thumbnail, or not at all."""
HEAD_END = "</head>"


async def page(file: Path, request: Request, state: State, stream: str) -> HTMLResponse:
    """The page of a stream; of one that there isn't, the page says so itself.

    Args:
        file: `index.html`.
        request: whose address the links begin with.
        state: the server's.
        stream: an id, or `main`.
    """
    html = await asyncio.to_thread(file.read_text, encoding="utf-8")
    try:
        session = state.sessions.get(stream)
    except SessionError:
        session = None
    if session is not None and not session.over:
        base = str(request.base_url).rstrip("/")
        html = html.replace(HEAD_END, _preview(session, base, stream) + HEAD_END, 1)
    return HTMLResponse(html)


def _preview(session: Session, base: str, stream: str) -> str:
    height = round(PREVIEW_WIDTH * session.height / session.width)
    url = f"{base}/" if stream == "main" else f"{base}/s/{stream}"
    meta = {
        "og:type": "video.other",
        "og:url": url,
        "og:site_name": "Live",
        "og:title": session.prompt,
    }
    if session.picture >= 0:
        meta |= {
            "og:image": f"{base}/v1/streams/{stream}/poster.jpg?width={PREVIEW_WIDTH}",
            "og:image:type": "image/jpeg",
            "og:image:width": str(PREVIEW_WIDTH),
            "og:image:height": str(height),
            "og:image:alt": session.prompt,
        }
    lines = [f'<meta property="{name}" content="{escape(value)}">' for name, value in meta.items()]
    return "\n".join([*lines, '<meta name="twitter:card" content="summary_large_image">', ""])
