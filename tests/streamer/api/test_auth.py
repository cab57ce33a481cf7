"""Who counts as local, by which names a server is called, and what a configured site's pages may do. No worker."""

from __future__ import annotations

from typing import Any, cast

import httpx
import pytest
from starlette.requests import HTTPConnection

from streamer.api.app import create_app
from streamer.api.auth import is_local
from streamer.settings import Settings


def client(settings: Settings) -> httpx.AsyncClient:
    # Neither sessions nor an engine: what is asked here is answered before they are.
    app = create_app(settings, cast(Any, None), cast(Any, None), cast(Any, None))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8000")


@pytest.mark.parametrize(
    ("peer", "host", "more", "local"),
    [
        ("127.0.0.1", "localhost:8000", {}, True),
        ("127.0.0.1", "127.0.0.1", {}, True),
        ("::1", "[::1]:8000", {}, True),
        ("127.0.0.1", "evil.example:8000", {}, False),
        ("127.0.0.1", "127.0.0.1.evil.example", {}, False),
        ("127.0.0.1", "localhost", {"x-forwarded-for": "192.0.2.1"}, False),
        ("192.0.2.1", "localhost:8000", {}, False),
        ("127.0.0.1", "[", {}, False),
    ],
)
def test_local_is_this_machine_by_its_own_name(peer: str, host: str, more: dict[str, str], local: bool) -> None:
    headers = [(name.encode(), value.encode()) for name, value in {"host": host, **more}.items()]
    assert is_local(HTTPConnection({"type": "http", "client": (peer, 1), "headers": headers})) is local


@pytest.mark.parametrize(
    ("bind", "host", "status"),
    [
        ("127.0.0.1", "localhost:8000", 200),
        ("127.0.0.1", "[::1]:8000", 200),
        ("127.0.0.1", "Wall.example", 200),
        ("127.0.0.1", "evil.example", 400),
        ("0.0.0.0", "evil.example", 200),
    ],
)
async def test_names_of_a_loopback_server(bind: str, host: str, status: int) -> None:
    async with client(Settings(host=bind, hosts=("wall.example",))) as http:
        answer = await http.get("/healthz", headers={"Host": host})
    assert answer.status_code == status
    if status == 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert (answer.json()["code"], answer.json()["field"]) == ("host-refused", "Host")


async def test_an_origin_that_is_no_address_is_foreign() -> None:
    async with client(Settings()) as http:
        answer = await http.post("/v1/streams", json={"prompt": "sea"}, headers={"Origin": "http://["})
    assert (answer.status_code, answer.json()["code"]) == (403, "origin-refused")


@pytest.mark.parametrize(("site", "allowed"), [("https://wall.example", True), ("https://evil.example", False)])
async def test_a_configured_sites_pages_may_post_json(site: str, allowed: bool) -> None:
    asked = {
        "Origin": site,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    async with client(Settings(origins=("https://wall.example",))) as http:
        preflight = await http.options("/v1/streams", headers=asked)
        read = await http.get("/healthz", headers={"Origin": site})
    assert preflight.is_success is allowed
    assert read.headers.get("access-control-allow-origin") == (site if allowed else None)
