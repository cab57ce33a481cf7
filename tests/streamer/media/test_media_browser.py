"""What the hub sends, played by a real Chromium: every shown picture is read back from the pixels."""

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import HTMLResponse, PlainTextResponse
from media_feed import HEIGHT, RATE_HZ, WIDTH, Feed
from playwright.async_api import Page, async_playwright

from streamer.media.hub import Hub
from streamer.media.whep import WhepResource

pytestmark = pytest.mark.browser

FIRST_TICK = 1_000_000  # RTP time has turned over by then, and 32 bits of media time too

PAGE = """<!doctype html><video muted playsinline></video><script>
const video = document.querySelector("video"), canvas = document.createElement("canvas");
const context = canvas.getContext("2d", {willReadFrequently: true});
window.shown = [];
function onFrame(now, {mediaTime, rtpTimestamp}) {
  canvas.width = video.videoWidth; canvas.height = video.videoHeight;
  context.drawImage(video, 0, 0);
  let number = 0;
  for (let bit = 0; bit < 16; bit++) number |= (context.getImageData(8 + 16 * bit, 8, 1, 1).data[0] > 126) << bit;
  shown.push({number, mediaTime, rtpTimestamp});
  video.requestVideoFrameCallback(onFrame);
}
video.requestVideoFrameCallback(onFrame);
function mse() {
  const socket = new WebSocket(`ws://${location.host}/video`), queue = [];
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({data}) => {
    const {mime, tick, rate_hz} = JSON.parse(data), source = new MediaSource();
    if (!MediaSource.isTypeSupported(mime)) throw new Error(mime);
    video.src = URL.createObjectURL(source);
    source.onsourceopen = () => {
      const buffer = source.addSourceBuffer(mime);
      const next = () => { if (queue.length && !buffer.updating) buffer.appendBuffer(queue.shift()); };
      buffer.onupdateend = () => {
        if (buffer.buffered.length && video.paused) { video.currentTime = tick / rate_hz; video.play(); }
        if (buffer.buffered.length) {
          const last = Math.round(buffer.buffered.end(buffer.buffered.length - 1) * rate_hz) - 1;
          socket.send(JSON.stringify({type: "ack", tick: last}));
        }
        next();
      };
      next();
      socket.onmessage = ({data}) => { queue.push(data); next(); };
    };
    socket.onmessage = ({data}) => queue.push(data);
  };
}
async function whep() {
  const peer = new RTCPeerConnection();
  peer.addTransceiver("video", {direction: "recvonly"});
  peer.ontrack = ({track}) => { video.srcObject = new MediaStream([track]); video.play(); };
  await peer.setLocalDescription(await peer.createOffer());
  const answer = await fetch("/whep", {method: "POST", body: peer.localDescription.sdp});
  await peer.setRemoteDescription({type: "answer", sdp: await answer.text()});
}
</script>"""


@dataclass
class Server:
    """The hub behind a bare server."""

    hub: Hub
    url: str = ""
    resources: list[WhepResource] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/")
        def page() -> HTMLResponse:
            return HTMLResponse(PAGE)

        @app.websocket("/video")
        async def video(socket: WebSocket) -> None:
            await socket.accept()
            with self.hub.fragments() as viewer:
                start = await viewer.start()
                await socket.send_json({"mime": start.mime, "tick": start.tick, "rate_hz": RATE_HZ})

                async def listen() -> None:
                    while (message := await socket.receive())["type"] != "websocket.disconnect":
                        viewer.acknowledge(int(message["text"].rsplit(":", 1)[1].rstrip("}")))
                    viewer.close()

                listening = asyncio.create_task(listen())
                async for data in viewer:
                    await socket.send_bytes(data)
                await listening

        @app.post("/whep")
        async def whep(request: Request) -> PlainTextResponse:
            resource = await WhepResource.open(self.hub, (await request.body()).decode())
            self.resources.append(resource)
            return PlainTextResponse(resource.answer)

        return app


@pytest.fixture
async def server(hub: Hub) -> AsyncIterator[Server]:
    server = Server(hub)
    config = uvicorn.Config(
        server.app(),
        port=0,
        lifespan="off",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        log_level="warning",
    )
    web = uvicorn.Server(config)
    serving = asyncio.create_task(web.serve())
    async with asyncio.timeout(10):
        while not web.started:  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0.01)
    server.url = f"http://127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}/"
    yield server
    await asyncio.gather(*(resource.close() for resource in server.resources))
    web.should_exit = True
    await serving


@pytest.fixture
async def page(server: Server) -> AsyncIterator[Page]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on the PATH")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = await browser.new_page()
        await page.goto(server.url)
        yield page
        await browser.close()


async def shown(page: Page, count: int) -> list[dict[str, Any]]:
    await page.wait_for_function("count => shown.length >= count", arg=count, timeout=20_000)
    return list(await page.evaluate("shown"))


def usual(values: list[int]) -> int:
    """The commonest value: a browser may draw the neighbour of the picture it tells of, now and then."""
    return Counter(values).most_common(1)[0][0]


async def test_media_source_plays_the_fragments_at_their_ticks(hub: Hub, server: Server, page: Page) -> None:
    feed = Feed(hub, FIRST_TICK)
    async with feed.live():
        await page.evaluate("mse()")
        await shown(page, 2)
        pictures = await shown(page, 30)
        latest, buffered = feed.tick, await page.evaluate("video.buffered.length")
    ticks = [round(picture["mediaTime"] * RATE_HZ) for picture in pictures]
    assert ticks == sorted(ticks)
    assert ticks[0] >= FIRST_TICK
    assert usual([(tick - picture["number"]) % 65_536 for tick, picture in zip(ticks, pictures, strict=True)]) == 0
    assert latest - ticks[-1] < 2 * RATE_HZ
    assert buffered == 1  # no hole
    assert (
        await page.evaluate("video.videoWidth"),
        await page.evaluate("video.videoHeight"),
    ) == (WIDTH, HEIGHT)
    await page.close()
    async with asyncio.timeout(10):
        while hub.viewers:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_webrtc_plays_the_packets_at_their_ticks(hub: Hub, server: Server, page: Page) -> None:
    feed = Feed(hub, FIRST_TICK)
    async with feed.live():
        await page.evaluate("whep()")
        pictures = await shown(page, 30)
        latest = feed.tick
    origin = server.resources[0].rtp_origin()
    assert origin is not None
    step = 90_000 // RATE_HZ
    ticks = []
    for picture in pictures:
        ahead = (picture["rtpTimestamp"] - origin - FIRST_TICK * step) & 0xFFFFFFFF
        assert ahead % step == 0
        ticks.append(FIRST_TICK + ahead // step)
    assert ticks == sorted(ticks)
    assert usual([(tick - picture["number"]) % 65_536 for tick, picture in zip(ticks, pictures, strict=True)]) == 0
    assert latest - ticks[-1] < 2 * RATE_HZ
