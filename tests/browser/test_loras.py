"""Adapters on the page: sliders, where the model has any."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import expect
from serving import Server, serve
from tiny_lora import save_tiny_lora
from viewer import PHONE, Opener, Viewer


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def adapted(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    folder = tmp_path_factory.mktemp("loras")
    for seed, name in enumerate(("ink", "glow"), 1):
        save_tiny_lora(folder / name, seed)
    options = ["--lora", f"ink={folder / 'ink'}:0.5", "--lora", f"glow={folder / 'glow'}:0"]
    async with serve(tiny_model, "--max-streams", "1", "--rate-hz", "16", *options) as running:
        yield running


async def test_a_model_without_adapters_shows_none(view: Opener) -> None:
    viewer = await view("/")
    await expect(viewer.page.get_by_role("tab", name="scene")).to_be_visible()
    await expect(viewer.page.locator("#loras-open")).to_be_hidden()


async def opened(viewer: Viewer) -> Any:
    await viewer.page.get_by_role("button", name="Adapters").click()
    await expect(viewer.page.locator("#pads")).to_be_hidden()
    ink = viewer.page.get_by_role("slider", name="ink")
    await expect(ink).to_be_visible()
    return ink


async def test_a_slider_steers_and_the_last_place_before_a_boundary_counts(view: Opener, adapted: Server) -> None:
    first, second = await view("/", url=adapted.url), await view("/", url=adapted.url, size=PHONE, touch=True)
    ink, theirs = await opened(first), await opened(second)
    await expect(ink).to_have_value("0.5")
    prompt = await first.page.locator("#prompt").input_value()
    await ink.evaluate(
        """(slider) => {
          for (let value = 0.6; value < 1.31; value += 0.05) {
            slider.value = value;
            slider.dispatchEvent(new Event("input", { bubbles: true }));
          }
        }"""
    )
    await first.flag("ink 1.30", "shown")
    await expect(theirs).to_have_value("1.3")
    await expect(first.page.locator("#prompt")).to_have_value(prompt)
    async with httpx.AsyncClient(base_url=f"{adapted.url}/v1") as http:
        main = (await http.get("/streams/main")).json()
        asked = (await http.get("/streams/main/steers")).json()["steers"]
    assert main["loras"] == [{"name": "ink", "weight": 1.3}]
    assert main["prompt"] == prompt
    assert len(asked) < 15
    await expect(first.page.locator('.flag[data-state="superseded"]:visible')).to_have_count(0)

    await first.page.get_by_role("tab", name="scene").click()
    await expect(first.page.locator("#pads")).to_be_visible()
    await expect(ink).to_be_hidden()
