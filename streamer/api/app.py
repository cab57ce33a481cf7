"""The web application: middleware, health, pages, and the routers of `/v1`."""

from __future__ import annotations

import secrets
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamer.api import events, loras, model, problems, steers, streams, video, videos, whep
from streamer.api import page as pages
from streamer.api.auth import HostCheck, OriginCheck
from streamer.api.head import Head, as_asked
from streamer.api.limits import BodyLimit
from streamer.api.state import State
from streamer.clips.manager import Clips
from streamer.engine.process import Engine
from streamer.session.manager import Sessions
from streamer.settings import Settings

# The page loads nothing from elsewhere and runs no inline script; it may be embedded (output windows, walls).
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self' ws: wss:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'"
)


def web_folder() -> Path:
    """The page's files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "web"
    return installed if installed.is_dir() else package.parent / "clients" / "web"


class Files(StaticFiles):
    """The page's files. A WebSocket to an address that is none is refused like any other request."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await super().__call__(as_asked(scope), receive, send)
        else:
            await problems.Problem(404, "not-found", "nothing is here").response(None)(scope, receive, send)


class Stamp:
    """ASGI middleware: a request id for problems and logs, and the headers every answer carries."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(8)}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers.setdefault("Cache-Control", "no-cache")  # the next server may have another model and page
                headers.setdefault("Content-Security-Policy", _POLICY)
            await send(message)

        await self._app(scope, receive, stamped)


def create_app(settings: Settings, sessions: Sessions, engine: Engine, clips: Clips) -> FastAPI:
    """The application over a server's sessions and clips; it owns neither them nor the engine."""
    app = FastAPI(title="Streamer", version="1", docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json")
    app.state.streamer = State(settings, sessions, engine, clips)
    problems.install(app)
    app.add_middleware(Head)
    app.add_middleware(BodyLimit)
    app.add_middleware(OriginCheck, settings=settings)
    if settings.origins:
        # Lets those pages' browsers send JSON and tokens, and read the answers.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
            expose_headers=["Location", "Retry-After", "X-Request-ID"],
        )
    if settings.on_loopback:
        app.add_middleware(HostCheck, names=settings.hosts)
    app.add_middleware(Stamp)
    for part in (model, loras, streams, steers, whep, video, events, videos):
        app.include_router(part.router, prefix="/v1")

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "up"}

    @app.get("/readyz")
    async def readyz() -> Response:
        if engine.ready is not None:
            return JSONResponse(
                {"status": "ready", "rate_hz": engine.ready.rate_hz, "capacity": engine.ready.capacity}
            )
        progress = engine.progress
        fraction, what = (progress.fraction, progress.what) if progress else (0.0, "starting the worker")
        problem = problems.Problem(
            503,
            "not-ready",
            f"warming up: {what}",
            retry_after_s=1.0,
            progress=round(fraction, 3),
            what=what,
            vocabulary=engine.vocabulary,
        )
        return problem.response(None)

    web = web_folder()

    @app.get("/", include_in_schema=False)
    @app.get("/s/{stream}", include_in_schema=False)
    async def page(request: Request, stream: str = "main") -> HTMLResponse:
        return await pages.page(web / "index.html", request, app.state.streamer, stream)

    app.mount("/", Files(directory=web), name="web")
    return app
