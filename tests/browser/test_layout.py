"""Phone, keyboard, kiosk, output, and who can't see or hold still."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import expect
from viewer import PHONE, Opener

MODULES = Path(__file__).resolve().parents[2] / "clients" / "web" / "js"
LONG_FIGURES = """() => {
  for (const [id, text] of [["uptime", "1:02:33"], ["viewers", "12 viewers"], ["slower", "12 Hz"]])
    Object.assign(document.getElementById(id), { textContent: text, hidden: false });
  document.getElementById("edge").style.transform = "scale(1.018)"; // as it pulses when a steer is shown
  const box = (id) => document.getElementById(id).getBoundingClientRect();
  return [document.documentElement.scrollWidth, box("sheet-open").right, box("ring").bottom].map(Math.round);
}"""
SMALL = """() => [...document.querySelectorAll("button, a, input")]
  .filter((e) => e.offsetParent && !e.closest("dialog") && getComputedStyle(e).visibility === "visible")
  .map((e) => [e.id || e.textContent.trim(), e.getBoundingClientRect()])
  .map(([name, box]) => [name, Math.round(box.width), Math.round(box.height)])
  .filter(([, w, h]) => w < 44 || h < 44)"""


async def test_a_phone_shows_everything_without_scrolling_sideways(view: Opener) -> None:
    viewer = await view("/", size=PHONE, touch=True)
    page = viewer.page
    assert await page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    assert await page.evaluate(SMALL) == []
    tops = [
        (await page.locator(name).bounding_box() or {"y": -1})["y"]
        for name in ("#stage", "#bar", "#timeline", "#banks", "#pads", "#steer")
    ]
    assert tops == sorted(tops)
    assert tops[0] == 0
    await page.locator(".pad", has_text="mountains").tap()
    await viewer.flag("mountains", "shown")


@pytest.mark.parametrize("width", [390, 320])
async def test_a_long_line_of_figures_does_not_widen_a_phone(view: Opener, width: int) -> None:
    """A wider page is zoomed out by the phone, and what is fixed to its bottom is cut off."""
    viewer = await view("/", size={"width": width, "height": 700}, touch=True)
    wide, keys, ring = await viewer.page.evaluate(LONG_FIGURES)
    assert wide == width
    assert keys <= width
    assert ring <= 700


async def test_targets_on_a_desk_are_large_enough(view: Opener) -> None:
    viewer = await view("/")
    assert await viewer.page.evaluate(SMALL) == []


async def test_at_twice_the_size_nothing_is_lost(view: Opener) -> None:
    viewer = await view("/", size={"width": 720, "height": 450})
    assert await viewer.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for name in ("#frame", "#timeline", "#prompt", "#pads .pad >> nth=0"):
        box = await viewer.page.locator(name).bounding_box()
        assert box
        assert box["height"] > 20
        assert box["y"] + box["height"] <= 451


async def test_pads_are_a_toolbar_with_one_tab_stop(view: Opener) -> None:
    viewer = await view("/")
    page = viewer.page
    await page.get_by_role("tab", name="time of day").click()
    await page.keyboard.press("Tab")
    await expect(page.locator(".pad").first).to_be_focused()
    await expect(page.locator(".pad").first).to_have_attribute("aria-keyshortcuts", "1")
    await page.keyboard.press("ArrowRight")
    await expect(page.locator(".pad").nth(1)).to_be_focused()
    outline = await page.evaluate("getComputedStyle(document.activeElement).outline")
    assert "rgb(245, 180, 84)" in outline
    assert "2px" in outline
    await page.keyboard.press("]")
    await expect(page.get_by_role("tab", name="mine")).to_have_attribute("aria-selected", "true")


async def test_single_keys_can_be_turned_off(view: Opener) -> None:
    viewer = await view("/")
    page = viewer.page
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.get_by_label("Single keys are on").uncheck()
    await page.keyboard.press("Escape")
    await page.keyboard.press("h")
    await expect(page.locator("#deck")).to_be_visible()
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_be_hidden()
    await page.get_by_role("button", name="Keys").click()
    await page.get_by_label("Single keys are on").check()
    await page.keyboard.press("Escape")
    await page.keyboard.press("h")
    await expect(page.locator("#deck")).to_be_hidden()


async def test_space_never_pauses(view: Opener) -> None:
    viewer = await view("/")
    await viewer.page.locator("#stage").click()
    await viewer.page.keyboard.press("Space")
    await viewer.plays(8)
    assert not await viewer.page.evaluate("document.querySelector('#frame video.on').paused")


async def test_the_output_is_the_picture_only(view: Opener) -> None:
    viewer = await view("/?output")
    await viewer.plays(8)
    assert (await viewer.page.locator("body").inner_text()).strip() == ""
    box = await viewer.page.locator("#frame").bounding_box()
    assert box
    assert box["height"] == 900


async def test_a_kiosk_shows_no_cursor_and_comes_back(view: Opener) -> None:
    viewer = await view("/?kiosk")
    page = viewer.page
    await viewer.plays(8)
    assert (await page.locator("body").inner_text()).strip() == ""
    assert await page.evaluate("getComputedStyle(document.querySelector('#frame')).cursor") == "none"
    # The connections break without a word: within seconds it makes new ones.
    await page.evaluate(
        """() => document.querySelectorAll("#frame video").forEach((video) => {
          video.srcObject = null;
          video.removeAttribute("src");
          video.load();
        })"""
    )
    await page.wait_for_function("() => document.querySelector('#frame video.on')?.readyState >= 2", timeout=20000)
    await viewer.plays(8)


async def test_reduced_motion_has_no_light(view: Opener) -> None:
    viewer = await view("/", state="")
    await viewer.page.emulate_media(reduced_motion="reduce")
    await viewer.state("live")
    await expect(viewer.page.locator("#light")).to_be_hidden()


async def test_watch_only_has_a_caption_and_no_deck(view: Opener) -> None:
    viewer = await view("/?watch")
    await expect(viewer.page.locator("#deck")).to_be_hidden()
    await expect(viewer.page.locator("#caption")).to_have_text(re.compile(r"\w"))


async def test_all_modules_are_asked_for_at_once(view: Opener) -> None:
    viewer = await view("/", state="")
    listed = await viewer.page.locator("link[rel=modulepreload]").evaluate_all(
        'links => links.map((link) => link.getAttribute("href"))'
    )
    assert sorted(listed) == sorted(f"/js/{path.name}" for path in MODULES.glob("*.js") if path.name != "app.js")


async def test_share_offers_links_and_the_recipe(view: Opener) -> None:
    viewer = await view("/")
    await viewer.page.get_by_role("button", name="Share").click()
    values = await viewer.page.locator("#share input").evaluate_all("inputs => inputs.map((i) => i.value)")
    assert [value.rsplit("/", 1)[1] for value in values[:3]] == ["?watch", "", "?output"]
    async with viewer.page.expect_download() as saving:
        await viewer.page.get_by_role("button", name="Save recipe").click()
    saved = await (await saving.value).path()
    assert saved.read_text().startswith("{")
