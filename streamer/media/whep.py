"""WHEP (RFC 9725's playback sibling, draft-ietf-wish-whep): an SDP offer in, an answer and H.264 over WebRTC out.

aiortc does ICE, DTLS, SRTP and RTP; the pictures it sends are the hub's packets, passed through. Knows nothing of
HTTP or of sessions.
"""

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import av
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.exceptions import OperationError
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.sdp import SessionDescription

from streamer.media import ice
from streamer.media.encoder import Packet
from streamer.media.hub import Hub, HubClosedError, HubFullError
from streamer.media.sink import Sink

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 15.0
MAX_OFFER_CHARACTERS = 65_536
MAX_MEDIA_SECTIONS = 8
"""An offer has one or two and a data channel's; each takes sockets of ours."""
MAX_MESSAGE_CHARACTERS = 16_384
MAX_CHANNEL_BYTES = 262_144
"""What may wait in a data channel; messages beyond are left out and counted."""
RTP_CLOCK_HZ = 90_000

ice.amend()


class WhepError(Exception):
    """A connection was refused. code: `sdp-malformed`, `sdp-unsupported`, `viewers-full` or `stream-ended`."""

    def __init__(self, code: str, detail: str, limit: int | None = None) -> None:
        super().__init__(detail)
        self.code, self.detail, self.limit = code, detail, limit


class WhepResource:
    """One WebRTC viewer, from the answered offer to the end of its connection.

    It counts as a viewer from the answer on and is gone when it is closed, fails, hasn't connected after
    CONNECT_TIMEOUT_S, or when the stream ends; then `on_gone` has been called. A peer that vanishes without a word
    is found out within 14 s, see `streamer.media.ice`.
    """

    id: str
    answer: str
    """The SDP to give back."""
    _life: asyncio.Task[None]

    @classmethod
    async def open(
        cls,
        hub: Hub,
        offer: str,
        *,
        ice_servers: Sequence[RTCIceServer] = (),
        on_message: Callable[["WhepResource", Any], None] | None = None,
        on_gone: Callable[["WhepResource"], None] | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> "WhepResource":
        """Answer an offer. Raises WhepError.

        on_message(resource, value) is called with each JSON value that the peer sends over a data channel of its
        making, on_gone(resource) once at the end.
        """
        offer = _checked(offer)
        try:
            packets = hub.packets()
        except HubFullError as error:
            raise WhepError("viewers-full", str(error), error.limit) from error
        except HubClosedError as error:
            raise WhepError("stream-ended", str(error)) from error
        self = cls(hub, packets, ice_servers, on_message, on_gone)
        try:
            await self._negotiate(offer)
        except BaseException:
            packets.close()
            await self._peer.close()
            raise
        self._life = asyncio.create_task(self._live(connect_timeout_s), name=f"whep {self.id}")
        return self

    def __init__(
        self,
        hub: Hub,
        packets: Sink[Packet],
        ice_servers: Sequence[RTCIceServer],
        on_message: Callable[["WhepResource", Any], None] | None,
        on_gone: Callable[["WhepResource"], None] | None,
    ) -> None:
        self.id = secrets.token_hex(16)
        self.unsent = 0
        """Messages left out because the data channel was full."""
        self._packets = packets
        self._on_message, self._on_gone = on_message, on_gone
        self._channel: RTCDataChannel | None = None
        # An empty list, not None: aiortc's default is a public STUN server, which costs 5 s where it is not reached.
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=list(ice_servers)))
        self._peer.on("connectionstatechange", self._state_changed)
        self._peer.on("datachannel", self._channel_opened)
        self._settled = asyncio.Event()  # connected, or closed before
        packets.on_close.append(self._settled.set)
        self._track = _PacketTrack(packets, hub.rate_hz)
        transceiver: RTCRtpTransceiver = self._peer.addTransceiver(self._track, direction="sendonly")
        self._track.sender = transceiver.sender
        # Before the remote description is set, or aiortc picks VP8 and sends H.264 under its name.
        transceiver.setCodecPreferences(
            [codec for codec in RTCRtpSender.getCapabilities("video").codecs if codec.mimeType == "video/H264"]
        )
        # aiortc notes a PLI or FIR for its own encoder only, which is not used here.
        transceiver.sender._send_keyframe = hub.keyframe

    def rtp_origin(self) -> int | None:
        """RTP time of tick 0: tick k has RTP timestamp (origin + k · 90,000 / rate_hz) mod 2³².

        None before the first picture is sent.
        """
        return self._track.rtp_origin

    def send_json(self, value: object) -> bool:
        """Send over the peer's data channel; False if it has none open, or reads too slowly."""
        channel = self._channel
        if channel is None or channel.readyState != "open":
            return False
        if channel.bufferedAmount > MAX_CHANNEL_BYTES:
            self.unsent += 1
            return False
        channel.send(json.dumps(value, separators=(",", ":"), ensure_ascii=False))
        return True

    @property
    def skipped(self) -> int:
        """Pictures left out so far because the connection was slow."""
        return self._packets.skipped

    async def close(self) -> None:
        """End the connection. May be called again."""
        self._packets.close()
        await asyncio.shield(self._life)

    async def _negotiate(self, offer: str) -> None:
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            await self._peer.setLocalDescription(await self._peer.createAnswer())
        except OperationError as error:
            raise WhepError("sdp-unsupported", f"the offer can't be met: {error}") from error
        except Exception as error:  # the parser's ways to fail on text from outside are not listed anywhere
            raise WhepError("sdp-malformed", f"the offer can't be used: {error!r}") from error
        self.answer = self._peer.localDescription.sdp

    async def _live(self, connect_timeout_s: float) -> None:
        try:
            async with asyncio.timeout(connect_timeout_s):
                await self._settled.wait()
            await self._packets.closed.wait()
        except TimeoutError:
            logger.info("WebRTC viewer %s never connected", self.id)
        finally:
            self._packets.close()
            await self._peer.close()
            if self._on_gone is not None:
                self._on_gone(self)

    def _state_changed(self) -> None:
        state = self._peer.connectionState
        if state == "connected":
            self._settled.set()
        elif state in ("failed", "closed"):
            self._packets.close()

    def _channel_opened(self, channel: RTCDataChannel) -> None:
        self._channel = channel
        channel.on("message", self._received)

    def _received(self, message: str | bytes) -> None:
        if self._on_message is None or len(message) > MAX_MESSAGE_CHARACTERS:
            return
        with contextlib.suppress(ValueError):  # not JSON: not for us
            self._on_message(self, json.loads(message))


class _PacketTrack(MediaStreamTrack):
    """The hub's packets as aiortc wants them: av.Packet, which its sender packs without encoding."""

    kind = "video"

    def __init__(self, packets: Sink[Packet], rate_hz: Fraction) -> None:
        super().__init__()
        self.sender: Any = None
        self.rtp_origin: int | None = None
        self._packets = packets
        self._rate_hz = rate_hz
        self._sent_tick: int | None = None

    async def recv(self) -> av.Packet:
        if self.rtp_origin is None and self._sent_tick is not None:
            # The sender adds a random origin of its own; it has just sent the packet before this one.
            sent = int(self._sent_tick * RTP_CLOCK_HZ / self._rate_hz)
            self.rtp_origin = (self.sender._RTCRtpSender__rtp_timestamp - sent) & 0xFFFFFFFF
        try:
            packet = await anext(self._packets)
        except StopAsyncIteration:
            self.stop()
            raise MediaStreamError from None
        self._sent_tick = packet.tick
        data = av.Packet(packet.data)
        data.pts, data.time_base = packet.tick, 1 / self._rate_hz
        return data


def _checked(offer: str) -> str:
    """The offer without what would only delay it. Raises WhepError where it can't be met."""
    if len(offer) > MAX_OFFER_CHARACTERS:
        raise WhepError("sdp-malformed", f"an offer has at most {MAX_OFFER_CHARACTERS} characters")
    # Browsers hide their addresses behind mDNS names, whose resolution takes a second or fails. They reach us
    # anyway; so these are not looked up, and the list of candidates doesn't end without them.
    lines = offer.splitlines()
    hidden = {line for line in lines if line.startswith("a=candidate:") and ".local " in line}
    if hidden:
        lines = [line for line in lines if line not in hidden and line != "a=end-of-candidates"]
    offer = "\r\n".join(lines) + "\r\n"
    try:
        description = SessionDescription.parse(offer)
    except Exception as error:
        raise WhepError("sdp-malformed", f"the offer is no SDP: {error!r}") from error
    if not description.media:
        raise WhepError("sdp-malformed", "the offer has no media section")
    if len(description.media) > MAX_MEDIA_SECTIONS:
        message = f"an offer has at most {MAX_MEDIA_SECTIONS} media sections"
        raise WhepError("sdp-unsupported", message, MAX_MEDIA_SECTIONS)
    if any(media.dtls is None or not media.dtls.fingerprints for media in description.media):
        raise WhepError("sdp-malformed", "the offer has a media section without DTLS fingerprint")
    videos = [media for media in description.media if media.kind == "video"]
    if not any(media.direction in ("recvonly", "sendrecv", None) for media in videos):
        raise WhepError("sdp-unsupported", "the offer doesn't ask for video")
    if not any(codec.mimeType.lower() == "video/h264" for media in videos for codec in media.rtp.codecs):
        raise WhepError("sdp-unsupported", "the offer has no H.264, which is all that is sent here")
    return offer
