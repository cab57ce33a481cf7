"""What a machine holds: the picture rate and the number of streams, from measured times. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from streamer.engine.info import Timings

RATES_HZ = (16.0, 12.0, 8.0)
RATE_SHARE = 0.576
"""Most of a tick that one stream may compute, so that the server, the encoder and a browser on the same cores have
the rest: 36 ms of the 62.5 ms at 16 Hz."""
CAPACITY_SHARE = 0.85
"""Most of a tick that all streams together may compute."""
PICTURES_PER_LATENT = 4


def picture_s(timings: Timings, block_latents: int) -> float:
    """Seconds of compute a picture costs, all in, once a stream runs."""
    return (timings.block_s / block_latents + timings.decode_s) / PICTURES_PER_LATENT


def choose_rate(cost_s: float, own_hz: float, alone: bool) -> tuple[float, str]:
    """The highest rate that one stream holds, and one line that says why.

    Args:
        cost_s: Seconds of compute a picture.
        own_hz: The checkpoint's own rate; the others tried are the lower ones of 16, 12 and 8 Hz.
        alone: Whether the compute device does nothing else (a GPU), so that a stream may have `CAPACITY_SHARE` of it.
    """
    share = CAPACITY_SHARE if alone else RATE_SHARE
    rates = candidates(own_hz)
    for rate_hz in rates:
        if cost_s * rate_hz <= share:
            text = (
                f"{rate_hz:g} Hz: a picture costs {cost_s * 1e3:.1f} ms, {share / rate_hz * 1e3:.1f} ms are allowed"
            )
            if rate_hz != rates[0]:
                text += f" ({share / rates[0] * 1e3:.1f} ms at {rates[0]:g} Hz)"
            return rate_hz, text
    lowest = rates[-1]
    return lowest, (
        f"{lowest:g} Hz, and this machine may not hold even that: "
        f"a picture costs {cost_s * 1e3:.1f} ms, {share / lowest * 1e3:.1f} ms are allowed"
    )


def candidates(own_hz: float) -> Sequence[float]:
    """The rates to try, highest first."""
    return (own_hz, *(rate_hz for rate_hz in RATES_HZ if rate_hz < own_hz))


def capacity(cost_s: float, rate_hz: float) -> int:
    """Streams that run in real time at this rate, at least 1."""
    return max(1, int(CAPACITY_SHARE / (cost_s * rate_hz)))
