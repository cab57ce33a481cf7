"""What a server is started with."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

STARTER = Path(__file__).resolve().parent.parent / "model" / "starter"


@dataclass(frozen=True)
class Settings:
    """Everything that `streamer serve` can be told. Defaults are safe: loopback, no other site, no outside server."""

    model: str = str(STARTER)
    host: str = "127.0.0.1"
    port: int = 8000
    device: str = "cpu"
    dtype: str | None = None
    loading: tuple[str, ...] = ()
    """How else the model is loaded: arguments of the worker, see `streamer.engine.options`."""
    rate_hz: float | None = None
    """Pictures a second; None lets the machine measure itself and take the highest it holds."""
    prompt: str | None = None
    """First prompt of the stream `main`; None takes one that the checkpoint knows."""
    seed: int | None = None
    max_streams: int | None = None
    """Streams at once; None takes what the warm-up measured."""
    threads: int | None = None
    origins: tuple[str, ...] = ()
    """Origins of other sites whose pages may use this server, e.g. `https://gallery.example`."""
    hosts: tuple[str, ...] = ()
    """Names by which this server may be addressed beside its own (a proxy's, a LAN name)."""
    admin_token: str | None = field(default=None, repr=False)
    ice_servers: tuple[str, ...] = ()
    """STUN or TURN URLs; none by default, since nothing outside is asked without being told to."""
    videos: Path | None = None
    """Folder of finished clips, which outlive the server there; None: a temporary one, removed at the end."""
    videos_bytes: int = 4 << 30
    """Most bytes of finished clips; the oldest go first."""
    videos_keep_s: float = 86400.0
    """How long a clip is kept once it is made."""
    lora_dir: Path | None = None
    """Where adapters may be loaded from while the server runs; None: none may."""
    trust_loopback: bool = True
    """Whoever comes from this machine may steer and end streams without a token."""

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        host = "localhost" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://[{host}]:{self.port}/" if ":" in host else f"http://{host}:{self.port}/"
