"""The picture: both ways, joining, coming back, a stream that is over, a place that is taken."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import psutil
from playwright.async_api import expect
from serving import Server, serve
from tiny import save_tiny_model
from viewer import Opener


async def main_stream(api: httpx.AsyncClient) -> dict[str, Any]:
    stream: dict[str, Any] = (await api.get("/streams/main")).json()
    return stream


async def test_plays_over_the_websocket_at_the_live_edge(view: Opener) -> None:
    viewer = await view("/?transport=ws")
    await expect(viewer.page.locator("#video-ws")).to_have_class("on")
    await viewer.plays(32)
    await viewer.page.wait_for_function(
        """() => {
          const video = document.querySelector("#video-ws");
          return video.buffered.end(video.buffered.length - 1) - video.currentTime < 0.3;
        }"""
    )


async def test_plays_over_webrtc(view: Opener) -> None:
    viewer = await view("/?transport=webrtc")
    await expect(viewer.page.locator("#video-rtc")).to_have_class("on")
    await viewer.plays(32)


async def test_webrtc_takes_over_from_the_websocket(view: Opener) -> None:
    viewer = await view("/")
    await expect(viewer.page.locator("#video-rtc")).to_have_class("on", timeout=8000)
    await expect(viewer.page.locator("#video-ws")).not_to_have_class("on")
    await viewer.plays(16)


async def test_stays_with_the_websocket_where_webrtc_gives_nothing(view: Opener) -> None:
    viewer = await view("/", state="")
    await viewer.context.route("**/whep", lambda route: route.fulfill(status=422, json={"code": "sdp-unsupported"}))
    await viewer.page.reload()
    await viewer.state("live")
    await viewer.plays(32)
    await expect(viewer.page.locator("#video-ws")).to_have_class("on")


async def test_a_first_visit_asks_for_nothing_that_is_not_there(
    view: Opener, server: Server, api: httpx.AsyncClient
) -> None:
    """Whoever opens the console sees no error: the stream has no poster before its first picture."""
    made = (await api.post("/streams", json={"prompt": "the sea", "idle": "end"})).json()
    viewer = await view("/healthz", state="")
    missing: list[str] = []
    viewer.page.on("response", lambda answer: missing.append(answer.url) if answer.status >= 400 else None)
    await viewer.page.goto(f"{server.url}/s/{made['id']}")
    await viewer.state("live")
    await viewer.plays(8)
    assert missing == []
    await api.delete(f"/streams/{made['id']}")


async def test_a_second_tab_joins(view: Opener, api: httpx.AsyncClient) -> None:
    first = await view("/")
    second = await view("/")
    await asyncio.gather(first.plays(16), second.plays(16))
    await expect(second.page.locator("#viewers")).to_have_text(re.compile(r"[2-9] viewers"), timeout=8000)
    assert (await main_stream(api))["viewers"] >= 2


async def test_a_reload_attaches_again(view: Opener, api: httpx.AsyncClient) -> None:
    viewer = await view("/")
    await viewer.plays(8)
    made = (await api.post("/streams/main/steers", json={"prompt": "the sea at night"})).json()
    await viewer.steer(made["id"])
    before = (await main_stream(api))["picture"]
    await viewer.page.reload()
    await viewer.state("live")
    await viewer.steer(made["id"])
    await expect(viewer.page.locator("#prompt")).to_have_value("the sea at night")
    await viewer.plays(16)
    assert (await main_stream(api))["picture"] > before


async def test_comes_back_after_the_worker_was_killed(view: Opener, api: httpx.AsyncClient, server: Server) -> None:
    viewer = await view("/")
    await viewer.plays(16)
    before = (await main_stream(api))["picture"]
    workers = [
        child
        for child in psutil.Process(server.process.pid).children(recursive=True)
        if "streamer.engine.worker" in child.cmdline()
    ]
    assert workers
    os.kill(workers[0].pid, signal.SIGKILL)
    await viewer.state("reconnecting", within_s=15)
    await expect(viewer.page.locator("#card")).to_contain_text("It comes back by itself")
    await viewer.state("live", within_s=60)
    await viewer.plays(16)
    assert (await main_stream(api))["picture"] > before


async def test_a_server_that_was_killed_and_started_anew_is_seen_warming_up(view: Opener, tiny_model: Path) -> None:
    async with serve(tiny_model) as first:
        viewer = await view("/", url=first.url)
        await viewer.plays(16)
        await viewer.page.evaluate(
            """() => {
              window.states = [];
              const look = () => states.push(document.body.dataset.state);
              new MutationObserver(look).observe(document.body, { attributeFilter: ["data-state"] });
            }"""
        )
        first.process.kill()
        await viewer.state("reconnecting", within_s=15)
        async with serve(tiny_model, "--port", first.url.rpartition(":")[2], ready=False):
            await viewer.state("warming", within_s=15)
            await viewer.page.locator(".pad", has_text="mountains").click()
            await expect(viewer.page.locator("#note")).to_contain_text("as soon as it is live")
            await viewer.state("live", within_s=60)
            await viewer.flag("mountains", "shown")
            assert "behind" not in await viewer.page.evaluate("states")  # there was nothing to go back to


async def test_a_server_that_is_started_anew_may_have_another_model(
    view: Opener, tiny_model: Path, tmp_path: Path
) -> None:
    harbour = {"scene": [{"name": "harbour", "prompt": "a harbour", "synonyms": []}]}
    other = save_tiny_model(tmp_path / "other", vocabulary=harbour)
    async with serve(tiny_model, "--rate-hz", "8", "--threads", "1") as first:
        viewer = await view(url=first.url)
        await viewer.plays(4)
        await expect(viewer.page.locator(".pad", has_text="mountains")).to_be_visible()
    async with serve(other, "--rate-hz", "8", "--threads", "1", "--port", first.url.rsplit(":", 1)[1]):
        await expect(viewer.page.locator(".pad", has_text="harbour")).to_be_visible(timeout=60_000)
        await expect(viewer.page.locator(".pad", has_text="mountains")).to_have_count(0)
        await viewer.state("live", within_s=60)


async def test_a_stream_that_is_over_is_gone_and_can_be_replayed(view: Opener, api: httpx.AsyncClient) -> None:
    made = (await api.post("/streams", json={"prompt": "snowy mountains by day"})).json()
    viewer = await view(f"/s/{made['id']}")
    await viewer.plays(8)
    await api.delete(f"/streams/{made['id']}")
    await viewer.state("gone")
    card = viewer.page.locator("#card")
    await expect(card).to_contain_text("ended by request")
    width, height = (int(side) for side in made["size"].split("x"))
    last = await viewer.page.evaluate("(({width, height}) => [width, height])(document.querySelector('#last'))")
    assert last[0] * height == last[1] * width  # the last picture stays as it was, nothing cut off
    await expect(card.get_by_role("button")).to_have_text(["Continue", "Replay", "New"])
    await card.get_by_role("button", name="Replay").click()
    await viewer.page.wait_for_url(lambda url: "/s/str_" in url and made["id"] not in url)
    await viewer.state("live")
    await expect(viewer.page.locator("#prompt")).to_have_value("snowy mountains by day")
    await api.delete(f"/streams/{viewer.page.url.rsplit('/', 1)[1]}")


async def test_a_stream_goes_on_with_every_digit_of_its_seed(view: Opener, api: httpx.AsyncClient) -> None:
    seed = 2**64 - 2  # a number of JavaScript would make 2**64 of it
    made = (await api.post("/streams", json={"prompt": "snowy mountains by day", "seed": seed})).json()
    viewer = await view(f"/s/{made['id']}")
    await api.delete(f"/streams/{made['id']}")
    await viewer.page.get_by_role("button", name="Continue").click()
    await viewer.page.wait_for_url(lambda url: "/s/str_" in url and made["id"] not in url)
    id = viewer.page.url.rsplit("/", 1)[1]
    again = (await api.get(f"/streams/{id}")).json()
    assert (again["prompt"], again["seed"]) == ("snowy mountains by day", seed)
    await api.delete(f"/streams/{id}")


async def test_where_every_place_is_taken_it_names_the_streams_to_join(view: Opener, api: httpx.AsyncClient) -> None:
    made = (await api.post("/streams", json={"prompt": "snowy mountains by day"})).json()
    await api.delete(f"/streams/{made['id']}")
    watcher = await view("/")
    await watcher.plays(8)
    viewer = await view(f"/s/{made['id']}", state="gone")
    await viewer.page.get_by_role("button", name="New").click()
    await viewer.state("full")
    link = viewer.page.locator("#card a")
    await expect(link).to_have_attribute("href", "/")
    await link.click()
    await viewer.state("live")


async def test_an_unknown_stream_is_gone(view: Opener) -> None:
    viewer = await view("/s/str_nothing", state="gone")
    await expect(viewer.page.locator("#card h2")).to_have_text("This stream is over")


async def test_while_the_server_warms_up_pads_queue(view: Opener, api: httpx.AsyncClient) -> None:
    viewer = await view("/")
    vocabulary = (await api.get("/model")).json()["vocabulary"]
    warm = {"status": 503, "json": {"code": "not-ready", "status": 503, "progress": 0.4, "vocabulary": vocabulary}}
    cold = True

    async def answer(route: Any) -> None:
        await (route.fulfill(**warm) if cold else route.continue_())

    for path in ("**/readyz", "**/v1/streams/main", "**/v1/model"):
        await viewer.page.route(path, answer)
    await viewer.page.reload()
    await viewer.state("warming")
    await expect(viewer.page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "40")
    await viewer.page.locator(".pad", has_text="mountains").click()
    await expect(viewer.page.locator("#note")).to_contain_text("as soon as it is live")
    cold = False
    await viewer.state("live")
    await viewer.flag("mountains", "shown")
