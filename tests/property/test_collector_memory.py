"""Peers that open, feed, leave and cancel transfers while memory is short: bounds hold, and what was dropped stays dropped."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from raptor_s3.codec import ObjectTransmissionInformation
from raptor_s3.transfer.collecting import DISPLACE_S
from raptor_s3.transfer.events import ObjectReady, SendState, TransferKey
from raptor_s3.transfer.incoming import Collector, CollectorLimits
from raptor_s3.wire.datagram import FLAG_CANCEL, FLAG_PUT_HEADER, FLAG_RFC6330_REPAIR, Datagram
from raptor_s3.wire.put_header import build_put_header, crc32_field
from raptor_s3.wire.transfer_state import StateType

PUT = FLAG_PUT_HEADER | FLAG_RFC6330_REPAIR
SYMBOL = 1000
LIMITS = CollectorLimits(max_bytes=60_000, max_bytes_per_peer=40_000, max_object_bytes=30_000, max_transfers_per_peer=8)

STEPS = st.lists(
    st.tuples(
        st.integers(0, 3),  # peer
        st.integers(0, 9),  # which of its objects: their sizes are from 1 to 28 symbols
        st.integers(0, 27),  # ESI, or the cancel
        st.sampled_from([0.0, 0.01, 0.5, 1.0, 3.0, 20.0]),  # time until then
    ),
    max_size=60,
)


def datagram(peer: int, number: int, esi: int) -> Datagram:
    """A source symbol of one of a peer's objects, beyond them the cancel."""
    symbols = 1 + 3 * number
    body = bytes((peer,)) * (SYMBOL * (symbols - 1) + 200)
    data = build_put_header({"Bucket": "b", "Key": "k", "ChecksumCRC32": crc32_field(body), "TtlMs": 600_000}) + body
    oti = ObjectTransmissionInformation(len(data), SYMBOL, 1)
    name = f"{number:022}"
    if esi >= symbols:
        return Datagram(name, oti, PUT | FLAG_CANCEL, 0, 0, b"")
    return Datagram(name, oti, PUT, 0, esi, data[SYMBOL * esi : SYMBOL * (esi + 1)].ljust(SYMBOL, b"\0"))


@settings(max_examples=300, deadline=None)
@given(steps=STEPS)
def test_memory_stays_within_its_bounds_and_the_dropped_stay_dropped(steps: list[tuple[int, int, int, float]]) -> None:
    collector, now = Collector(LIMITS), 0.0
    heard_at: dict[TransferKey, float] = {}
    dead_until: dict[TransferKey, float] = {}
    for peer, number, esi, pause_s in steps:
        now += pause_s
        each = datagram(peer, number, esi)
        key = TransferKey(bytes((peer,)), each.object_id)
        held_before = {other.key for other in collector._transfers.values()}
        events = list(collector.handle_timer(now))
        expired = {other for other in held_before if other not in collector._transfers}
        events += collector.receive(key.peer_key, each, now, key)
        displaced = held_before - expired - collector._transfers.keys() - {key}
        for other in displaced:
            assert other.peer_key != key.peer_key
            assert now - heard_at[other] >= DISPLACE_S
            assert key in collector._transfers, "none makes room for nobody"
            dead_until[other] = heard_at[other] + LIMITS.idle_s + LIMITS.tombstone_s
        if not each.flags & FLAG_CANCEL:
            heard_at[key] = now
        for event in events:
            if isinstance(event, ObjectReady):
                assert now >= dead_until.get(event.transfer, 0.0)
                events += collector.finish(event.transfer, StateType.COMPLETE, None, now)
            elif isinstance(event, SendState) and event.state.type is StateType.CANCELLED:
                dead_until.setdefault(event.origin, now + LIMITS.tombstone_s)
        told = {event.origin for event in events if isinstance(event, SendState)}
        assert displaced <= told
        by_peer = Counter[bytes]()
        for transfer in collector._transfers.values():
            by_peer[transfer.key.peer_key] += transfer.reserved_bytes
        assert collector.bytes_held == by_peer.total() <= LIMITS.max_bytes
        assert max(by_peer.values(), default=0) <= LIMITS.max_bytes_per_peer
    for _ in range(20):
        now += 100
        collector.handle_timer(now)
    assert (collector.transfers, collector.tombstones, collector.bytes_held) == (0, 0, 0)
