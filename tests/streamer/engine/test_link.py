from __future__ import annotations

import socket
import threading

import pytest

from streamer.engine import link as link_module
from streamer.engine.framing import Decoder, ProtocolError, encode
from streamer.engine.link import Link
from streamer.engine.protocol import (
    Close,
    Credit,
    Progress,
    Snapshot,
    ToServer,
    ToWorker,
)

PATIENCE_S = 20.0


def test_messages_in_any_pieces() -> None:
    messages = [
        Credit(stream="a", epoch=1, denoise_until=3, decode_until=2, due_s=0.5),
        Close(stream="ä", epoch=2),
    ]
    data = b"".join(encode(message) for message in messages)
    for size in (1, 3, 7, len(data)):
        decoder = Decoder[ToWorker](ToWorker)
        pieces = [data[i : i + size] for i in range(0, len(data), size)]
        assert [message for piece in pieces for message in decoder.feed(piece)] == messages


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\xc1", encode(Progress(fraction=0, what="other direction"))]
)
def test_nonsense_is_an_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(Decoder[ToWorker](ToWorker).feed(data))


def test_both_ways_and_the_end() -> None:
    ours, theirs = socket.socketpair()
    link = Link(theirs)
    close = Close(stream="a", epoch=1)
    ours.sendall(encode(close))
    assert link.receive(PATIENCE_S) == close
    assert link.receive(0.0) is None
    link.send(Progress(fraction=0.5, what="half"))
    assert list(Decoder[ToServer](ToServer).feed(ours.recv(1000))) == [Progress(fraction=0.5, what="half")]
    ours.close()
    assert link.receive(PATIENCE_S) is None
    assert link.closed
    link.send(Progress(fraction=1.0, what="to nobody"))  # neither raises nor waits


def test_a_server_that_does_not_read_stops_the_sender_and_frees_it_when_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "MAX_OUTBOX_BYTES", 1 << 20)
    ours, theirs = socket.socketpair()
    link = Link(theirs)
    sent = 0
    done = threading.Event()

    def send() -> None:
        nonlocal sent
        for _ in range(64):
            link.send(Snapshot(stream="a", epoch=1, latent=0, data=bytes(1 << 19)))
            sent += 1
        done.set()

    threading.Thread(target=send, daemon=True).start()
    decoder = Decoder[ToServer](ToServer)
    received = sum(len(list(decoder.feed(ours.recv(1 << 16)))) for _ in range(64))
    assert not done.is_set()
    assert sent <= received + 8  # what fits in the outbox and the socket's buffers
    ours.close()
    assert done.wait(PATIENCE_S)
