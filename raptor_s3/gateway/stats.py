"""What the gateway counts. One line of JSON every --stats-interval, and at the end.

Invariant: every datagram that is dropped is counted under exactly one `dropped_*`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields


@dataclass(slots=True)
class Stats:
    """Counters since the start; only the loop's thread writes them."""

    received: int = 0
    """UDP datagrams read from the sockets."""
    received_bytes: int = 0
    data: int = 0
    """Datagrams that were authentic and parsed."""
    handshakes: int = 0
    dropped_unauthentic: int = 0
    """No session, bad tag, replay, unknown peer, or no WireGuard message at all."""
    dropped_malformed: int = 0
    """Authentic, but no datagram of ours."""
    dropped_full: int = 0
    """A bound on memory was reached: per peer, in all, or the sink's or forwarder's queue."""
    dropped_stale: int = 0
    """Waited too long to be forwarded; their senders have sent fresh ones."""
    dropped_unroutable: int = 0
    """Replies for a peer without a session here, or without EgressRegion."""
    dropped_unsent: int = 0
    """Replies that the kernel would not take."""
    objects_decoded: int = 0
    objects_refused: int = 0
    """By policy, put header, or checksum."""
    objects_written: int = 0
    objects_failed: int = 0
    objects_cancelled: int = 0
    objects_unnamed: int = 0
    """Without a put header, and no place for them."""
    forwarded: int = 0
    """Datagrams handed to Lambda or SQS."""
    forward_batches: int = 0
    forward_failures: int = 0
    """Datagrams that Lambda or SQS did not take, after retries."""
    errors: int = 0
    """Turns of the loop that raised: our bugs, with a traceback in the log."""
    replies: int = 0
    states_sent: int = 0

    def line(self, **more: object) -> str:
        """The counters that are not zero, as one line of JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return json.dumps({**{name: value for name, value in values.items() if value}, **more})
