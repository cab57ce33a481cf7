"""`<live-stream>` in a page of another site."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from playwright.async_api import Browser, expect
from serving import serve

HTML = """<!doctype html><body>
<script type="module" src="{server}/embed.js"></script>
<live-stream src="{server}/v1/streams/main" controls="pads prompt"></live-stream>"""


@contextlib.asynccontextmanager
async def site() -> AsyncIterator[tuple[str, dict[str, str]]]:
    """Another site: its origin, and its page, which may be set later. A real one, or Chromium asks who may what."""
    page = {"html": ""}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = page["html"].encode()
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", page


async def test_plays_and_steers_in_another_sites_page(tiny_model: Path, chromium: Browser) -> None:
    async with site() as (origin, other), serve(tiny_model, "--origin", origin, "--rate-hz", "16") as server:
        other["html"] = HTML.format(server=server.url)
        context = await chromium.new_context()
        page = await context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.goto(origin)
        await page.locator("live-stream[data-state=live]").wait_for(timeout=30_000)
        # Soon, if not at once: WebRTC may be taking over just now.
        await expect(page.locator("live-stream video.on")).to_have_js_property("videoWidth", 64)

        stages = await page.evaluate("""async () => {
          const element = document.querySelector("live-stream");
          const steer = element.steer("the sea at night");
          const [queued, locked, shown] = [await steer.queued, await steer.locked, await steer.shown];
          const same = queued.at_picture === locked.at_picture;
          return [queued.id.slice(0, 4), same, shown.latency_s > 0, element.prompt];
        }""")
        assert stages == ["ste_", True, True, "the sea at night"]

        states = await page.evaluate("""async () => {
          const element = document.querySelector("live-stream");
          const first = element.steer("the sea", { at: { in_s: 30 } });
          await first.queued;
          element.steer("rain", { at: { in_s: 30 } });
          const why = await first.shown.catch((error) => error.name);
          const refused = await element.steer("x".repeat(9000)).queued.catch((error) => error.code);
          return [why, refused];
        }""")
        assert states == ["superseded", "prompt-too-long"]

        pad = page.locator("live-stream button", has_text="mountains")
        await pad.click()
        assert await pad.get_attribute("aria-pressed") == "true"
        await page.wait_for_function(
            "() => document.querySelector('live-stream').prompt === 'snowy mountains at night'", timeout=20_000
        )
        field = page.locator("live-stream input")
        await field.fill("fog")
        await field.press("Enter")
        await page.wait_for_function("() => document.querySelector('live-stream').prompt === 'fog'", timeout=20_000)

        gone = await page.evaluate("""async () => {
          const element = document.querySelector("live-stream");
          const waits = element.steer("the sea", { at: { in_s: 60 } });
          await waits.queued;
          element.remove();
          return waits.shown.catch((error) => error.name);
        }""")
        assert gone == "AbortError"
        assert not errors
        await context.close()
