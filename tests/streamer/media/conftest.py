import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from media_feed import HEIGHT, RATE_HZ, WIDTH, Feed

from streamer.media.hub import Hub


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    hub = Hub(WIDTH, HEIGHT, RATE_HZ)
    yield hub
    await hub.close()


@pytest.fixture
def feed(hub: Hub) -> Feed:
    return Feed(hub)


@pytest.fixture
async def leaves_nothing() -> AsyncIterator[None]:
    """Fails the test if a task or an encoder's thread is left at its end."""
    before = asyncio.all_tasks()
    yield
    if left := asyncio.all_tasks() - before - {asyncio.current_task()}:
        _, left = await asyncio.wait(left, timeout=5)
    assert not left
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("encoder")]
