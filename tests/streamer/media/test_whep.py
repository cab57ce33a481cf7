import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aioice.ice
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from media_feed import HEIGHT, RATE_HZ, WIDTH, Feed, number_of

from streamer.media import ice, whep
from streamer.media.hub import Hub
from streamer.media.whep import WhepError, WhepResource

TICK = whep.RTP_CLOCK_HZ // RATE_HZ


class Peer:
    """A viewer as aiortc makes it: offers to receive video, and decodes it."""

    def __init__(self, codec: str = "video/H264", *, channel: bool = False) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.transceiver = self.connection.addTransceiver("video", direction="recvonly")
        codecs = RTCRtpReceiver.getCapabilities("video").codecs
        self.transceiver.setCodecPreferences([each for each in codecs if each.mimeType == codec])
        self.channel = self.connection.createDataChannel("events") if channel else None
        self.messages = asyncio.Queue[str]()
        self.opened = asyncio.Event()
        if self.channel is not None:
            self.channel.on("message", self.messages.put_nowait)
            self.channel.on("open", self.opened.set)

    async def offer(self) -> str:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def accept(self, answer: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def frame(self) -> Any:
        return await self.transceiver.receiver.track.recv()

    async def number(self) -> int:
        return number_of((await self.frame()).to_ndarray()[:HEIGHT])


@pytest.fixture
async def peers() -> AsyncIterator[list[Peer]]:
    peers: list[Peer] = []
    yield peers
    for peer in peers:
        await peer.connection.close()


async def watch(hub: Hub, peers: list[Peer], *, channel: bool = False, **options: Any) -> tuple[WhepResource, Peer]:
    peer = Peer(channel=channel)
    peers.append(peer)
    resource = await WhepResource.open(hub, await peer.offer(), **options)
    await peer.accept(resource.answer)
    return resource, peer


async def test_a_viewer_sees_the_pictures_in_order_soon(
    leaves_nothing: None, hub: Hub, feed: Feed, peers: list[Peer]
) -> None:
    async with feed.live(), asyncio.timeout(10):
        resource, peer = await watch(hub, peers)
        joined = feed.tick
        first = await peer.number()
        assert first - joined < 3 * RATE_HZ
        assert [await peer.number() for _ in range(20)] == list(range(first + 1, first + 21))
        assert hub.viewers == 1
        await resource.close()
    assert hub.viewers == 0
    await hub.close()
    await peer.connection.close()


async def test_a_second_viewer_gets_a_keyframe_mid_gop(hub: Hub, feed: Feed, peers: list[Peer]) -> None:
    async with feed.live(), asyncio.timeout(15):
        _, first = await watch(hub, peers)
        await first.number()
        keyframes = hub.stats.keyframes
        _, second = await watch(hub, peers)
        joined = feed.tick
        assert await second.number() - joined < 2 * RATE_HZ
        assert keyframes < hub.stats.keyframes <= keyframes + 3
        assert hub.viewers == 2


async def test_a_lost_picture_brings_a_keyframe(hub: Hub, feed: Feed, peers: list[Peer]) -> None:
    """Contract: aiortc's sender calls its private _send_keyframe for a PLI."""
    async with feed.live(), asyncio.timeout(15):
        _, peer = await watch(hub, peers)
        await peer.number()
        keyframes = hub.stats.keyframes
        receiver = peer.transceiver.receiver
        (source,) = receiver.getSynchronizationSources()
        await receiver._send_rtcp_pli(source.source)
        while hub.stats.keyframes == keyframes:
            await peer.number()


async def test_rtp_time_maps_to_ticks(
    hub: Hub, feed: Feed, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contract: aiortc's sender keeps its last RTP timestamp in a private attribute, and adds pts to its origin."""
    async with feed.live(), asyncio.timeout(10):
        resource, peer = await watch(hub, peers)
        assert resource.rtp_origin() is None
        arrived: list[int] = []
        receiver = peer.transceiver.receiver
        handle = receiver._handle_rtp_packet

        async def noting(packet: Any, arrival_time_ms: int) -> None:
            arrived.append(packet.timestamp)
            await handle(packet, arrival_time_ms)

        monkeypatch.setattr(receiver, "_handle_rtp_packet", noting)
        for _ in range(5):
            frame = await peer.frame()
            origin = resource.rtp_origin()
            assert origin is not None
            rtp_timestamp = arrived[0] + frame.pts  # aiortc's receiver counts from the first packet
            assert (rtp_timestamp - origin) & 0xFFFFFFFF == number_of(frame.to_ndarray()[:HEIGHT]) * TICK


async def test_the_answer_is_h264_sent_only_without_public_servers(hub: Hub, peers: list[Peer]) -> None:
    resource, _ = await watch(hub, peers)
    assert "H264/90000" in resource.answer
    assert "VP8" not in resource.answer
    assert "a=sendonly" in resource.answer
    assert "srflx" not in resource.answer
    await resource.close()


async def test_json_goes_both_ways_over_the_peers_channel(hub: Hub, peers: list[Peer]) -> None:
    received = asyncio.Queue[tuple[WhepResource, Any]]()
    async with asyncio.timeout(10):
        resource, peer = await watch(
            hub, peers, channel=True, on_message=lambda resource, value: received.put_nowait((resource, value))
        )
        assert resource.send_json({"early": True}) is False
        await peer.opened.wait()
        assert peer.channel is not None
        peer.channel.send("not JSON")
        peer.channel.send('"' + "x" * whep.MAX_MESSAGE_CHARACTERS + '"')
        peer.channel.send('{"type":"steer","prompt":"Nacht fällt"}')
        assert await received.get() == (resource, {"type": "steer", "prompt": "Nacht fällt"})
        assert resource.send_json({"type": "clock", "tick": 7}) is True
        assert await peer.messages.get() == '{"type":"clock","tick":7}'


async def test_a_channel_that_is_not_read_is_bounded(
    hub: Hub, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whep, "MAX_CHANNEL_BYTES", 1000)
    async with asyncio.timeout(10):
        resource, peer = await watch(hub, peers, channel=True)
        await peer.opened.wait()
        sent = sum(resource.send_json("x" * 500) for _ in range(100))  # none leaves while the loop is held
    assert 0 < sent < 10
    assert resource.unsent == 100 - sent


async def test_the_peer_hanging_up_ends_the_viewer(
    leaves_nothing: None, hub: Hub, feed: Feed, peers: list[Peer]
) -> None:
    gone = asyncio.Queue[WhepResource]()
    async with feed.live(), asyncio.timeout(10):
        resource, peer = await watch(hub, peers, on_gone=gone.put_nowait)
        await peer.number()
        await peer.connection.close()
        assert await gone.get() is resource
        assert hub.viewers == 0
    await hub.close()


async def test_the_end_of_the_stream_ends_the_connection(
    leaves_nothing: None, hub: Hub, feed: Feed, peers: list[Peer]
) -> None:
    gone = asyncio.Queue[WhepResource]()
    async with asyncio.timeout(10):
        async with feed.live():
            resource, peer = await watch(hub, peers, on_gone=gone.put_nowait)
            await peer.number()
        await hub.close()
        assert await gone.get() is resource
        await resource.close()
        await peer.connection.close()


async def test_a_peer_that_vanishes_is_found_out(
    leaves_nothing: None, hub: Hub, feed: Feed, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ice, "CONSENT_INTERVAL_S", 0.1)
    monkeypatch.setattr(ice, "CONSENT_TRIES", 1)
    monkeypatch.setattr(ice, "CONSENT_RETRANSMISSIONS", 0)
    gone = asyncio.Queue[WhepResource]()
    async with feed.live(), asyncio.timeout(20):
        resource, peer = await watch(hub, peers, on_gone=gone.put_nowait)
        await peer.number()
        for protocol in peer.transceiver.receiver.transport.transport._connection._protocols:
            protocol.transport.abort()
        assert await gone.get() is resource
        assert hub.viewers == 0
    await peer.connection.close()
    await hub.close()


async def test_a_peer_that_answers_late_stays(
    hub: Hub, feed: Feed, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check waits until its last copy's time is over, not 0.5 s."""
    monkeypatch.setattr(ice, "CONSENT_INTERVAL_S", 0.1)
    async with feed.live(), asyncio.timeout(20):
        resource, peer = await watch(hub, peers)
        await peer.number()
        connection = peer.transceiver.receiver.transport.transport._connection
        answer, loop = connection.request_received, asyncio.get_running_loop()
        asked = asyncio.Queue[None]()

        def late(message: Any, *where: Any) -> None:
            asked.put_nowait(None)
            loop.call_later(0.7, answer, message, *where)

        connection.request_received = late
        for _ in range(6):
            await asked.get()
        assert (hub.viewers, resource._peer.connectionState) == (1, "connected")


async def test_a_peer_that_misses_all_checks_but_the_last_stays(
    hub: Hub, feed: Feed, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ice, "CONSENT_INTERVAL_S", 0.1)
    monkeypatch.setattr(ice, "CONSENT_RETRANSMISSIONS", 0)
    async with feed.live(), asyncio.timeout(20):
        resource, peer = await watch(hub, peers)
        await peer.number()
        connection = peer.transceiver.receiver.transport.transport._connection
        answer, missed = connection.request_received, 0
        rounds = asyncio.Queue[None]()

        def third(message: Any, *where: Any) -> None:
            nonlocal missed
            missed = (missed + 1) % ice.CONSENT_TRIES
            if not missed:
                answer(message, *where)
                rounds.put_nowait(None)

        connection.request_received = third
        for _ in range(3):
            await rounds.get()
        assert (hub.viewers, resource._peer.connectionState) == (1, "connected")


async def test_who_never_connects_is_sent_away(leaves_nothing: None, hub: Hub) -> None:
    gone = asyncio.Queue[WhepResource]()
    peer = Peer()
    resource = await WhepResource.open(hub, await peer.offer(), on_gone=gone.put_nowait, connect_timeout_s=0.2)
    assert hub.viewers == 1
    async with asyncio.timeout(5):
        assert await gone.get() is resource
    assert hub.viewers == 0
    await peer.connection.close()
    await hub.close()


@pytest.mark.parametrize(
    ("code", "edit"),
    [
        ("sdp-malformed", lambda sdp: ""),
        ("sdp-malformed", lambda sdp: "hello"),
        ("sdp-malformed", lambda sdp: '{"type": "offer"}'),
        ("sdp-malformed", lambda sdp: "x" * 70_000),
        ("sdp-malformed", lambda sdp: sdp.replace("m=video", "m=")),
        ("sdp-malformed", lambda sdp: sdp.replace("a=ice-pwd", "a=nothing")),
        ("sdp-malformed", lambda sdp: sdp.replace("a=rtpmap:", "a=rtpmap:x")),
        ("sdp-malformed", lambda sdp: sdp.replace("a=fingerprint:", "a=nothing:")),
        ("sdp-malformed", lambda sdp: sdp[: len(sdp) // 2]),
        ("sdp-unsupported", lambda sdp: sdp.replace("H264/", "H265/")),
        ("sdp-unsupported", lambda sdp: sdp.replace("42e01f", "640c1f").replace("42001f", "640c1f")),
        ("sdp-unsupported", lambda sdp: sdp.replace("a=recvonly", "a=sendonly")),
        ("sdp-unsupported", lambda sdp: sdp + sdp[sdp.index("m=video") :] * 8),
        ("sdp-malformed", lambda sdp: sdp + sdp[sdp.index("m=video") :]),
    ],
)
async def test_bad_offers_are_refused_and_leave_nothing(leaves_nothing: None, hub: Hub, code: str, edit: Any) -> None:
    peer = Peer()
    offer = edit(await peer.offer())
    with pytest.raises(WhepError) as caught:
        await WhepResource.open(hub, offer)
    assert (caught.value.code, hub.viewers) == (code, 0)
    await peer.connection.close()
    await hub.close()


async def test_vp8_alone_is_not_enough(hub: Hub, peers: list[Peer]) -> None:
    peers.append(Peer("video/VP8"))
    with pytest.raises(WhepError, match=r"no H\.264") as caught:
        await WhepResource.open(hub, await peers[0].offer())
    assert caught.value.code == "sdp-unsupported"


async def test_places_are_limited_and_given_back(peers: list[Peer]) -> None:
    hub = Hub(WIDTH, HEIGHT, RATE_HZ, max_viewers=1)
    resource, _ = await watch(hub, peers)
    with pytest.raises(WhepError) as caught:
        await watch(hub, peers)
    assert (caught.value.code, caught.value.limit) == ("viewers-full", 1)
    await resource.close()
    again, _ = await watch(hub, peers)
    await again.close()
    await hub.close()
    with pytest.raises(WhepError) as caught:
        await watch(hub, peers)
    assert caught.value.code == "stream-ended"


async def test_a_machine_with_nothing_but_loopback_can_still_be_watched(
    hub: Hub, feed: Feed, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contract: aioice asks its module's get_host_addresses, which never gives 127.0.0.1."""
    monkeypatch.setattr(ice, "_all_host_addresses", lambda use_ipv4, use_ipv6: [])
    assert aioice.ice.get_host_addresses is ice._host_addresses
    async with feed.live(), asyncio.timeout(10):
        resource, peer = await watch(hub, peers)
        assert "127.0.0.1" in resource.answer
        await peer.number()


async def test_hidden_addresses_are_not_looked_up(hub: Hub, feed: Feed, peers: list[Peer]) -> None:
    peer = Peer()
    peers.append(peer)
    offer = await peer.offer()
    lines = [line for line in offer.splitlines() if not line.startswith("a=candidate:")]
    hidden = "a=candidate:1 1 udp 2113937151 0b1c2d3e-aaaa-bbbb-cccc-ddddeeeeffff.local 54321 typ host"
    offer = "\r\n".join([*lines, hidden]) + "\r\n"
    async with feed.live(), asyncio.timeout(10):
        resource = await WhepResource.open(hub, offer)
        await peer.accept(resource.answer)
        await peer.number()
