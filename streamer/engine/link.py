"""The worker's end of the socket: a thread that reads, a thread that writes, and bounded queues between."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections import deque

from streamer.engine.framing import Decoder, ProtocolError, encode
from streamer.engine.protocol import Message, ToWorker

READ_BYTES = 1 << 20
MAX_INBOX_MESSAGES = 4096
MAX_OUTBOX_BYTES = 64 << 20
"""Bytes that may wait to be written, one message more: beyond them computing waits for the server to read."""


class Link:
    """Messages in (`receive`) and out (`send`), in order; ends when the socket closes."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._inbox: queue.Queue[ToWorker | None] = queue.Queue(MAX_INBOX_MESSAGES)
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        for work, name in ((self._read, "link reader"), (self._write, "link writer")):
            threading.Thread(target=work, name=name, daemon=True).start()

    @property
    def closed(self) -> bool:
        """Whether the other side is gone."""
        return self._closed

    def receive(self, timeout_s: float) -> ToWorker | None:
        """The next message; None when none came in time or the socket closed."""
        try:
            return self._inbox.get(timeout=timeout_s) if timeout_s > 0 else self._inbox.get_nowait()
        except queue.Empty:
            return None

    def send(self, message: Message) -> None:
        """Queue a message. Waits while too many bytes wait already; drops it when the socket is closed."""
        data = encode(message)
        with self._changed:
            while self._outbox_bytes > MAX_OUTBOX_BYTES and not self._closed:
                self._changed.wait()
            if not self._closed:
                self._outbox.append(data)
                self._outbox_bytes += len(data)
                self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything queued is handed to the system; False if it took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed or self._outbox_bytes == 0, timeout_s)

    def _close(self) -> None:
        with self._changed:
            self._closed = True
            self._outbox.clear()
            self._outbox_bytes = 0
            self._changed.notify_all()
        # Wake a `receive` that waits; if the inbox is full it has something to take anyway.
        with contextlib.suppress(queue.Full):
            self._inbox.put_nowait(None)

    def _read(self) -> None:
        decoder = Decoder[ToWorker](ToWorker)
        try:
            while data := self._socket.recv(READ_BYTES):
                for message in decoder.feed(data):
                    self._inbox.put(message)
        except (OSError, ProtocolError):
            pass  # a server that is gone or speaks nonsense: the worker ends either way
        self._close()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or bool(self._outbox))
                if self._closed:
                    return
                data = self._outbox[0]
            try:
                self._socket.sendall(data)
            except OSError:
                self._close()
                return
            with self._changed:
                if not self._closed:
                    self._outbox.popleft()
                    self._outbox_bytes -= len(data)
                    self._changed.notify_all()
