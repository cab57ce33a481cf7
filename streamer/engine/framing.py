"""Messages on a socket: a 4-byte big-endian length, then one MessagePack object tagged with its type."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

from streamer.engine.protocol import Message

MAX_MESSAGE_BYTES = 1 << 30
_LENGTH = struct.Struct(">I")
M = TypeVar("M")


class ProtocolError(Exception):
    """A frame that is too long or does not decode."""


_encoder = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    """One framed message."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Decoder(Generic[M]):
    """Turns a byte stream into messages of one direction."""

    def __init__(self, kind: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(kind)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[M]:
        """Yield the messages that `data` completes.

        Raises:
            ProtocolError: over-long frame, or bytes that are no message of this direction.
        """
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_MESSAGE_BYTES:
                raise ProtocolError(f"a message of {length} bytes exceeds the limit of {MAX_MESSAGE_BYTES}")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            try:
                yield self._decoder.decode(body)
            except msgspec.DecodeError as error:
                raise ProtocolError(str(error)) from error
