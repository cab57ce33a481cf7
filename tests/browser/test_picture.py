"""A picture that is dropped, pasted or chosen starts a stream of one's own."""

from __future__ import annotations

import base64
import io

import httpx
from PIL import Image
from playwright.async_api import Page, expect
from viewer import Opener

HAND_OVER = """async ([content, name, kind]) => {
  const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: name.endsWith(".txt") ? "text/plain" : "image/png" }));
  const options = { bubbles: true, cancelable: true };
  const event = kind === "paste" ? new ClipboardEvent(kind, { ...options, clipboardData: data })
    : new DragEvent(kind, { ...options, dataTransfer: data });
  document.body.dispatchEvent(event);
  return event.defaultPrevented;
}"""


def picture(width: int = 320, height: int = 200) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(file, "PNG")
    return file.getvalue()


async def hand_over(page: Page, kind: str, content: bytes, name: str = "a.png") -> bool:
    """Drag over, drop or paste a file; whether the page took it from the browser."""
    return bool(await page.evaluate(HAND_OVER, [base64.b64encode(content).decode(), name, kind]))


async def alone(page: Page) -> None:
    """Wait until the server counts nobody else: it may still have to see that the page before this one has gone."""
    await page.evaluate("""async () => {
      const viewers = async () => (await (await fetch("/v1/streams/main")).json()).viewers;
      while (await viewers() !== 1) await new Promise(requestAnimationFrame);
    }""")


async def test_a_dropped_picture_starts_a_stream_in_the_place_that_its_only_viewer_leaves(
    view: Opener, api: httpx.AsyncClient
) -> None:
    viewer = await view("/?transport=ws")
    page = viewer.page
    await alone(page)
    await page.fill("#prompt", "snowy mountains at night")
    assert await hand_over(page, "dragover", picture())
    await expect(page.locator("#drop p")).to_be_visible()
    assert await hand_over(page, "drop", picture())
    await page.wait_for_url("**/s/str_*", wait_until="commit")
    await viewer.state("live")
    await viewer.plays(8)
    stream = (await api.get(f"/streams/{page.url.rsplit('/', 1)[1]}")).json()
    assert stream["prompt"] == "snowy mountains at night"
    assert '"image":{"png":"' in (await api.get(f"/streams/{stream['id']}/log")).text
    await api.delete(f"/streams/{stream['id']}")


async def test_what_is_in_the_way_is_said_and_the_picture_goes_on(view: Opener) -> None:
    other = await view("/?transport=ws")
    viewer = await view("/?transport=ws")
    page, note = viewer.page, viewer.page.locator("#note")
    assert await hand_over(page, "paste", picture())
    await expect(note).to_contain_text("every place is taken, and somebody else watches this one")
    assert await hand_over(page, "drop", b"Dear diary", "diary.txt")
    await expect(note).to_contain_text("diary.txt is no picture")
    async with page.expect_file_chooser() as chosen:
        await page.locator("#picture").click()
    await (await chosen.value).set_files({"name": "a.png", "mimeType": "image/png", "buffer": b"no png"})
    await expect(note).to_contain_text("image is no PNG, JPEG, WEBP or GIF")
    await expect(page.locator("#drop p")).to_be_hidden()
    await viewer.plays(8)
    await other.plays(8)


async def test_only_who_may_press_something_may_drop_pictures(view: Opener) -> None:
    viewer = await view("/?watch&transport=ws")
    assert await hand_over(viewer.page, "drop", picture())  # or the browser would leave the page for the file
    assert not await hand_over(viewer.page, "paste", picture())
    await viewer.plays(8)
    assert "/s/" not in viewer.page.url


async def test_the_size_that_cuts_least_and_files_that_the_server_takes(view: Opener) -> None:
    viewer = await view("/?transport=ws")
    script = """async (content) => {
      const { prepare, sizeFor } = await import("/js/picture.js");
      const sizes = ["256x144", "144x256"];
      const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
      const png = new Blob([bytes], { type: "image/png" });
      const limits = { image_bytes: 1e6, image_pixels: 1e6, image_types: ["PNG"] };
      const same = await prepare(png, limits);
      const less = await prepare(png, { ...limits, image_types: ["JPEG"] });
      const broken = await prepare(new Blob(["no"], { type: "image/png" }), limits);
      return [sizeFor(sizes, 3), sizeFor(sizes, 1.01), sizeFor(sizes, 0.9), same.picture === png, same.ratio,
        less.picture.type, less.ratio, Number.isNaN(broken.ratio)];
    }"""
    found = await viewer.page.evaluate(script, base64.b64encode(picture()).decode())
    assert found == ["256x144", "256x144", "144x256", True, 1.6, "image/jpeg", 1.6, True]
