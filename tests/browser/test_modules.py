"""The page's arithmetic and language, module by module, in the browser that runs them."""

from __future__ import annotations

from typing import Any

import pytest_asyncio
from viewer import Opener, Viewer

VOCABULARY = {
    "scene": [
        {"name": "sea", "prompt": "the sea", "synonyms": ["ocean"]},
        {"name": "desert", "prompt": "sand dunes", "synonyms": ["desert"]},
    ],
    "time of day": [
        {"name": "day", "prompt": "by day", "synonyms": ["daytime"]},
        {"name": "night", "prompt": "at night", "synonyms": ["night falls"]},
    ],
    "weather": [{"name": "rain", "prompt": "light rain", "synonyms": []}],
    "subject": [
        {"name": "sailboat", "prompt": "a sailboat", "synonyms": []},
        {"name": "birds", "prompt": "birds", "synonyms": []},
        {"name": "none", "prompt": "nothing else", "synonyms": []},
    ],
    "colour": [
        {"name": "red", "prompt": "red", "synonyms": []},
        {"name": "orange", "prompt": "orange", "synonyms": []},
    ],
    "camera": [{"name": "left", "prompt": "camera moves left", "synonyms": []}],
}


@pytest_asyncio.fixture(name="run", loop_scope="session")
async def _run(view: Opener) -> Any:
    viewer: Viewer = await view("/", state="")

    async def run(module: str, script: str, argument: Any = None) -> Any:
        code = f"async (argument) => {{ const m = await import('/js/{module}.js'); {script} }}"
        return await viewer.page.evaluate(code, argument)

    return run


async def test_prompts_are_parsed_and_composed(run: Any) -> None:
    script = """
      const [vocabulary, prompts] = argument;
      return prompts.map((p) => m.compose(m.parse(p, vocabulary)));"""
    prompts = {
        "a red sailboat on the sea at night, light rain": "a red sailboat, the sea at night, light rain",
        "night falls over the ocean": "the sea at night",
        "camera moves left, orange birds, the desert by day": "orange birds, sand dunes by day, camera moves left",
        "an orange sailboat": "an orange sailboat",
        "the sea by day, red, nothing else": "nothing else, the sea by day",
        "a castle": "",
    }
    assert await run("prompt", script, [VOCABULARY, list(prompts)]) == list(prompts.values())


async def test_a_short_prompt_keeps_the_other_attributes(run: Any) -> None:
    script = """
      const before = m.parse("a red sailboat on the sea by day", argument);
      return m.compose(m.apply(before, "night falls", argument));"""
    assert await run("prompt", script, VOCABULARY) == "a red sailboat, the sea at night"


async def test_unknown_words_and_their_nearest(run: Any) -> None:
    script = """
      const words = new m.Words(argument);
      return words
        .unknown("A Castle by the ocan, at midnight with a boat and a zzzzzz")
        .map((u) => [u.word, u.nearest]);"""
    assert await run("words", script, VOCABULARY) == [
        ["Castle", ""],
        ["ocan", "ocean"],
        ["midnight", "night"],
        ["boat", "sailboat"],
        ["zzzzzz", ""],
    ]


async def test_known_words_beside_the_vocabulary(run: Any) -> None:
    script = """
      const words = new m.Words(argument, ["schooner", "castle", "yet"]);
      return words.unknown("a castle yet no schoner").map((u) => [u.word, u.nearest]);"""
    assert await run("words", script, VOCABULARY) == [["schoner", "schooner"]]


async def test_without_a_vocabulary_every_word_is_known(run: Any) -> None:
    assert await run("words", "return new m.Words({}).unknown('anything at all');") == []


async def test_ticks_become_pictures_across_an_underrun(run: Any) -> None:
    script = """
      const clock = new m.Clock();
      clock.setRate(16);
      clock.heard(100, 90, 1000);
      clock.anchor(110, 95);  // five pictures in ten ticks
      return [90, 100, 103, 108, 110, 112].map((tick) => clock.pictureOf(tick));"""
    assert await run("clock", script) == [80, 90, 93, 95, 95, 97]


async def test_the_clock_follows_the_quickest_message_and_survives_a_standstill(run: Any) -> None:
    script = """
      const clock = new m.Clock();
      clock.setRate(10);
      clock.heard(10, 10, 1080);
      clock.heard(20, 20, 2010);
      clock.heard(30, 30, 3050);
      const flowing = clock.tickAt(4010);
      clock.heard(31, 31, 9100);  // nobody watched for six seconds
      return [flowing, clock.tickAt(9200)].map((tick) => Math.round(tick * 10) / 10);"""
    assert await run("clock", script) == [40, 32]


async def test_a_steer_is_late_by_what_was_not_promised(run: Any) -> None:
    script = """
      const { Clock } = await import("/js/clock.js");
      const clock = new Clock();
      clock.setRate(10);
      clock.heard(0, 0, 0);
      const steers = new m.Steers(clock);
      const steer = steers.ask("night", "night", 1000);
      steers.accepted(steer, { id: "a", at_picture: 25, eta_s: 1.2 }, 1100);
      const event = (type, data) => ({ type: `steer.${type}`, tick: 40, picture: 25, data: { id: "a", ...data } });
      steers.heard(event("locked", { at_picture: 25 }), 1500);
      steers.picture(24, 3000);
      const before = steer.state;
      steers.picture(25, 4000);
      return [before, steer.state, steer.latencyS, Math.round(steer.lateS * 10) / 10];"""
    assert await run("steers", script) == ["locked", "shown", 3, 1.7]
