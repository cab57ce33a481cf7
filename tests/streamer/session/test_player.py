"""The ticker's schedule, and which of the worker's words still count."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from virtual_clock import VirtualLoop, run

from streamer.engine.blocks import Blocks
from streamer.engine.protocol import Denoised, Message, Open, Pictures, Reschedule
from streamer.session.link import WorkerLink
from streamer.session.player import Player, Tick
from streamer.session.timeline import Timeline


def _pictures(latent: int, epoch: int = 1) -> Pictures:
    first, count = (0, 1) if latent == 0 else (4 * latent - 3, 4)
    named = [f"{n}".encode() for n in range(first, first + count)]
    return Pictures(stream="s", epoch=epoch, latent=latent, first_picture=first, i420=named)


class _Show:
    """A player with pictures 0 to 20, whose every release takes `busy_s` of the loop's time."""

    def __init__(self, busy_s: Callable[[int], float] = lambda tick: 0.0) -> None:
        self.loop = asyncio.get_running_loop()
        assert isinstance(self.loop, VirtualLoop)
        self.shown: list[tuple[float, bytes, Tick | None]] = []
        self._busy_s = busy_s
        self.timeline = Timeline(Blocks(3, 3), 16)
        self.player = Player(self.timeline, self._release, self._after)
        for latent in range(6):
            assert self.player.take(_pictures(latent))

    def _release(self, i420: bytes, tick: int) -> None:
        assert isinstance(self.loop, VirtualLoop)
        assert tick == len(self.shown)
        self.shown.append((self.loop.time() - 1000.0, i420, None))
        self.loop.advance(self._busy_s(tick))

    def _after(self, shown: Tick) -> None:
        at_s, i420, _ = self.shown[-1]
        self.shown[-1] = (at_s, i420, shown)


def test_a_busy_loop_does_not_make_the_ticks_drift() -> None:
    async def scenario() -> None:
        show = _Show(lambda tick: 0.01)
        show.player.start()
        await asyncio.sleep(1.2)
        show.player.stop()
        assert [at_s for at_s, _, _ in show.shown] == pytest.approx([k / 16 for k in range(len(show.shown))])

    run(scenario())


def test_a_loop_held_up_a_little_catches_up_and_held_up_long_does_not_burst() -> None:
    async def scenario() -> None:
        show = _Show(lambda tick: {3: 0.1, 8: 1.0}.get(tick, 0.0))
        show.player.start()
        await asyncio.sleep(2.2)
        show.player.stop()
        at_s = [at_s for at_s, _, _ in show.shown]
        assert at_s[4] == pytest.approx(3 / 16 + 0.1), "at once"
        assert at_s[5:9] == pytest.approx([5 / 16, 6 / 16, 7 / 16, 8 / 16]), "and on the old schedule"
        assert at_s[9] == pytest.approx(1.5)
        assert at_s[10] == pytest.approx(1.5 + 1 / 16), "a new schedule: no burst into the encoder"

    run(scenario())


def test_pictures_come_once_in_order_then_the_last_is_repeated() -> None:
    async def scenario() -> None:
        show = _Show()
        assert not show.player.take(_pictures(5)), "came before"
        assert not show.player.take(_pictures(7)), "not its turn"
        show.player.start()
        await asyncio.sleep(23 / 16 + 0.01)
        assert [i420 for _, i420, _ in show.shown] == [f"{min(n, 20)}".encode() for n in range(24)]
        assert [kind for _, _, kind in show.shown] == [Tick.PICTURE] * 21 + [Tick.UNDERRUN] * 3
        assert show.timeline.next_picture == 21
        show.player.stop()

    run(scenario())


def test_a_hold_shows_the_first_picture_and_waits_without_an_underrun() -> None:
    async def scenario() -> None:
        show = _Show()
        show.player.hold(show.loop.time() + 0.2)
        show.player.start()
        assert show.player.next_tick_s - show.loop.time() == pytest.approx(4 / 16)
        await asyncio.sleep(0.33)
        assert [kind for _, _, kind in show.shown] == [Tick.PICTURE, *[Tick.HELD] * 3, *[Tick.PICTURE] * 2]
        show.player.stop()

    run(scenario())


class _Wire:
    """An engine that only keeps what is sent."""

    ready = None
    stats = None

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.say: Callable[[Message], None] = lambda message: None

    def send(self, message: Message) -> bool:
        self.sent.append(message)
        return True

    def listen(self, stream: str, callback: Callable[[Message], None]) -> Callable[[], None]:
        self.say = callback
        return lambda: None

    def on_down(self, callback: object) -> None: ...

    def on_up(self, callback: object) -> None: ...


def _block(latent: int, epoch: int) -> Denoised:
    return Denoised(stream="s", epoch=epoch, block=latent // 3, first_latent=latent, latents=3, compute_s=0.1)


def test_what_a_steer_threw_away_counts_no_more_and_locked_pictures_always_do() -> None:
    wire, heard = _Wire(), list[Message]()
    link = WorkerLink(wire, "s", heard.append)

    def start() -> None:
        link.start(seed=1, height=16, width=16, rate_hz=16, steers=[], image=None, snapshot=None, decode_from=0)

    wire.say(_block(0, 1))
    assert not heard, "not open"
    start()
    link.reschedule(6, [])
    link.reschedule(9, [])
    assert [message.epoch for message in wire.sent if isinstance(message, Open | Reschedule)] == [1, 2, 3]
    for message in (_block(3, 1), _pictures(5, 1), _block(9, 3), _block(6, 2)):
        wire.say(message)
        assert heard[-1] is message
    for stale in (_block(6, 1), _block(9, 1), _block(9, 2), _block(12, 2)):
        wire.say(stale)
        assert heard[-1] is not stale
    link.lost()
    start()
    for stale in (_block(0, 3), _pictures(6, 3)):
        wire.say(stale)
        assert heard[-1] is not stale, "of an earlier life"
    wire.say(_pictures(6, 4))
    assert isinstance(heard[-1], Pictures)
