"""Watch and steer live generated video.

async with Client("http://127.0.0.1:8000") as client:
    stream = await client.streams.get("main")
    steer = stream.steer("night falls")
    await steer.released
    async for picture in stream.pictures():
        picture.rgb, picture.number, picture.steer
"""

from streamer_client.client import Client, Streams
from streamer_client.errors import Problem, StreamerError
from streamer_client.events import Event
from streamer_client.pictures import Picture
from streamer_client.steer import Steer, SteerFailed
from streamer_client.stream import Stream
from streamer_client.videos import Video, VideoFailed, Videos

__all__ = [
    "Client",
    "Event",
    "Picture",
    "Problem",
    "Steer",
    "SteerFailed",
    "Stream",
    "StreamerError",
    "Streams",
    "Video",
    "VideoFailed",
    "Videos",
]
