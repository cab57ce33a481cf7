"""What aioice does otherwise than viewers need."""

import asyncio
import random

import aioice.ice
from aioice.stun import TransactionError

CONSENT_INTERVAL_S = 2.5
"""Between two checks whether the peer is still there, a fifth more or less (RFC 7675, 5.1)."""
CONSENT_TRIES = 3
"""Checks in a row without an answer, after which it is not."""
CONSENT_RETRANSMISSIONS = 2
"""A check is sent at once, after 0.5 s and after 1.5 s, and waits 3.5 s for an answer to any of these."""

_all_host_addresses = aioice.ice.get_host_addresses


def _host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    """aioice leaves 127.0.0.1 out, always; a machine that has nothing else would have no candidate."""
    return _all_host_addresses(use_ipv4, use_ipv6) or (["127.0.0.1"] if use_ipv4 else [])


async def _query_consent(self: aioice.ice.Connection) -> None:
    """Close the connection when the peer no longer answers: 10.5 to 13.5 s after it vanished.

    A silence of up to 8.5 s, from the first packet of the first try to the last of the last, is borne; a longer one
    may not be, even if it is over by then.
    aioice's own takes 27 to 39 s, and counts an answer after 0.5 s as none: it ends a connection that is only slow.
    """
    while True:
        await asyncio.sleep(CONSENT_INTERVAL_S * (0.8 + 0.4 * random.random()))
        for pair in list(self._nominated.values()):
            if not await _answers(self, pair):
                self._query_consent_task = None  # or close() would wait for this very task
                await self.close()
                return


async def _answers(connection: aioice.ice.Connection, pair: aioice.ice.CandidatePair) -> bool:
    key = connection.remote_password.encode()
    for _ in range(CONSENT_TRIES):
        request = connection.build_request(pair, nominate=False)
        try:
            await pair.protocol.request(
                request, pair.remote_addr, integrity_key=key, retransmissions=CONSENT_RETRANSMISSIONS
            )
            return True
        except TransactionError:
            continue
    return False


def amend() -> None:
    """Put it right, for every connection of this process."""
    aioice.ice.get_host_addresses = _host_addresses
    aioice.ice.Connection.query_consent = _query_consent
