"""Clips in the worker's loop, in this process: alone, beside a stream, without credit, cancelled, impossible."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from test_worker_loop import READY

from model.checkpoint import load_checkpoint
from model.clip import Clip, ClipSpec
from model.image_start import picture_tensor
from model.weights import Kind
from streamer.engine.protocol import (
    ClipCredit,
    ClipDone,
    ClipPictures,
    ClipProgress,
    Close,
    Credit,
    Failed,
    Message,
    Open,
    OpenClip,
    Pictures,
    Steer,
    ToWorker,
)
from streamer.engine.scheduler import Costs
from streamer.engine.worker_clip import UnitTimes, WorkerClip, clip_info
from streamer.engine.worker_loop import WorkerLoop
from streamer.engine.worker_models import Models

FRAMES = 10


@pytest.fixture(scope="module")
def models(tiny_model: Path) -> Models:
    return Models(load_checkpoint(tiny_model, dtype=torch.float32))


def clip(name: str = "vid", **fields: Any) -> OpenClip:
    asked: dict[str, Any] = {"prompt": "the sea at night", "seed": 3, "height": 64, "width": 64, "frames": FRAMES}
    return OpenClip(stream=name, epoch=1, **asked | {"pictures_until": FRAMES} | fields)


class Script:
    """A link: what is sent is answered by `on`, which may give further messages; closes when nothing is to do."""

    def __init__(self, *messages: ToWorker, on: Callable[[Message], list[ToWorker]] = lambda message: []) -> None:
        self.messages = [*messages]
        self.sent: list[Message] = []
        self.closed = False
        self._on = on

    def receive(self, timeout_s: float) -> ToWorker | None:
        if self.messages:
            return self.messages.pop(0)
        self.closed |= timeout_s > 0
        return None

    def send(self, message: Message) -> None:
        self.sent.append(message)
        self.messages += self._on(message)

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.sent if isinstance(message, kind)]

    def run(self, models: Models) -> Script:
        WorkerLoop(self, models, READY, bucket=1, text_s=0.01).run()  # type: ignore[arg-type]
        return self


def expected(models: Models, **fields: Any) -> list[bytes]:
    spec: dict[str, Any] = {"prompt": "the sea at night", "seed": 3, "height": 64, "width": 64, "frames": FRAMES}
    made = Clip(models.checkpoint, ClipSpec(**spec | fields))
    rgb: list[bytes] = []
    while not made.finished:
        made.step()
        rgb += [picture.tobytes() for pictures in made.pictures() for picture in pictures.numpy()]
    return rgb


@pytest.mark.parametrize("kind", [Kind.STREAM, Kind.CLIP])
def test_a_clip_is_made_in_order_and_its_progress_is_told(models: Models, kind: Kind) -> None:
    models = Models(replace(models.checkpoint, kind=kind))
    picture = Image.linear_gradient("L").convert("RGB")
    file = io.BytesIO()
    picture.save(file, "PNG")
    fields: dict[str, Any] = {"steps": 3, "guidance_scale": 2.0, "negative_prompt": "fog"}
    link = Script(clip(image=file.getvalue(), **fields)).run(models)
    pictures = link.of(ClipPictures)
    assert [rgb for message in pictures for rgb in message.rgb] == expected(
        models, image=picture_tensor(picture, 64, 64)[0], **fields
    )
    assert [message.first_picture for message in pictures] == [0, 1, 5, 9]
    progress = link.of(ClipProgress)
    assert [message.done for message in progress] == [0, 0, *range(1, progress[-1].total + 1)]
    assert isinstance(link.sent[-1], ClipDone)


def test_a_clip_stops_at_its_credit_and_goes_on(models: Models) -> None:
    stopped = Script(clip(pictures_until=5)).run(models)
    assert sum(len(message.rgb) for message in stopped.of(ClipPictures)) == 5
    assert not stopped.of(ClipDone)

    def more(message: Message) -> list[ToWorker]:
        if not isinstance(message, ClipPictures):
            return []
        return [ClipCredit(stream="vid", epoch=1, pictures_until=message.first_picture + len(message.rgb) + 1)]

    assert Script(clip(pictures_until=1), on=more).run(models).of(ClipDone)


def test_streams_go_first_and_are_as_if_alone(models: Models) -> None:
    opened = Open(
        stream="a",
        epoch=1,
        seed=1,
        height=64,
        width=64,
        rate_hz=16.0,
        steers=[Steer(at_latent=0, prompt="the sea at night")],
    )
    credit = Credit(stream="a", epoch=1, denoise_until=6, decode_until=6, due_s=1000.0)
    alone = Script(opened, credit).run(models)
    beside = Script(clip(), opened, credit).run(models)
    assert [message.i420 for message in beside.of(Pictures)] == [message.i420 for message in alone.of(Pictures)]
    last = max(index for index, message in enumerate(beside.sent) if isinstance(message, Pictures))
    # One look at the messages lies between two jobs: the clip had its first unit before the stream was there.
    assert [type(message) for message in beside.sent[:last]].count(ClipProgress) <= 2
    assert beside.of(ClipDone)


def test_a_clip_without_time_waits_and_says_so(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.engine.worker_loop.STATS_EVERY_S", 0.0)
    opened = Open(
        stream="a", epoch=1, seed=1, height=64, width=64, rate_hz=16.0, steers=[Steer(at_latent=0, prompt="the sea")]
    )
    credit = Credit(stream="a", epoch=1, denoise_until=3, decode_until=3, due_s=10.0)

    def on(message: Message) -> list[ToWorker]:
        # The stream is open and has made all that it may.
        link.closed |= isinstance(message, ClipProgress) and message.waiting and len(link.of(Pictures)) == 3
        return []

    # To encode the picture of a clip that large is expected to take 80 s, and a stream's picture is due in 10.
    link = Script(opened, credit, clip(height=4096 * 64, image=b""), on=on)
    link.run(models)
    assert link.of(ClipProgress)[-1].waiting
    assert not link.of(Failed)  # it was not even begun


def test_a_cancelled_clip_ends_and_the_next_one_runs(models: Models) -> None:
    def on(message: Message) -> list[ToWorker]:
        if isinstance(message, ClipProgress) and message.stream == "vid" and message.done == 2:
            return [Close(stream="vid", epoch=1), clip("next")]
        return []

    link = Script(clip(), on=on).run(models)
    assert [message.stream for message in link.of(ClipDone)] == ["next"]
    assert not [message for message in link.of(ClipPictures) if message.stream == "vid"]


def test_a_clip_that_cannot_be_made_fails_alone_with_its_reason(models: Models) -> None:
    link = Script(clip(height=60)).run(models)
    assert link.of(Failed)[0].reason == "height: 60 is not allowed, must be a multiple of 16"
    assert Script(clip(height=60), clip("next")).run(models).of(Failed)[0].reason == "the worker makes another clip"
    bad = models.checkpoint.transformer
    weight = bad.proj_out.weight
    with torch.no_grad():
        kept = weight.clone()
        weight.fill_(float("nan"))
        try:
            link = Script(clip()).run(models)
        finally:
            weight.copy_(kept)
    assert "not finite" in link.of(Failed)[0].reason


def test_a_unit_is_expected_to_take_as_long_as_the_worst_but_one_stall_is_forgotten() -> None:
    times = UnitTimes(prior_s=0.5)
    assert times.expected_s(patient=False) == 0.5
    for took_s in (0.1, 3.0, 0.12):
        times.saw(took_s)
    assert times.expected_s(patient=False) == 3.0
    assert times.expected_s(patient=True) == 0.12


def test_the_first_guess_grows_with_size_rows_and_length(models: Models) -> None:
    costs = Costs(pass_s=0.1, decode_s=0.01)
    now_s = time.monotonic()

    def first(**fields: Any) -> WorkerClip:
        return WorkerClip(models, clip(**fields), costs, text_s=0.02, clock=lambda: now_s)

    def cost_s(clip: WorkerClip) -> float:
        unit = clip.unit()
        assert unit is not None
        return unit.cost_s

    def pass_s(**fields: Any) -> float:
        opened = first(**fields)
        list(opened.step(lambda: None))
        return cost_s(opened)

    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG")
    assert cost_s(first()) == pytest.approx(0.02)  # one text
    assert cost_s(first(guidance_scale=4.0, image=file.getvalue())) == pytest.approx(0.05)  # two, and a picture
    assert pass_s() == pytest.approx(0.1)
    assert pass_s(height=32) == pytest.approx(0.05)
    assert pass_s(guidance_scale=4.0) == pytest.approx(0.2)
    assert pass_s(frames=1000) == pytest.approx(0.1)  # block by block
    info = clip_info(models.checkpoint)
    assert (info.width, info.height, info.size_step, info.max_frames) == (64, 64, 16, 960)
    assert clip_info(replace(models.checkpoint, kind=Kind.CLIP)).max_frames == 9  # three latent frames
