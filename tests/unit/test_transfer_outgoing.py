"""OutgoingTransfer and Sender, driven by hand: what is sent when, what states do, what is never done."""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raptor_s3.errors import ConfirmationTimeout, TransferCancelled, TransferRejected
from raptor_s3.transfer.loss import flight_size
from raptor_s3.transfer.outcome import Confirm, Ending, error_for
from raptor_s3.transfer.outgoing import OutgoingTransfer
from raptor_s3.transfer.path import INITIAL_REPAIR, Learned, PathEstimates
from raptor_s3.transfer.plan import PutRequest
from raptor_s3.transfer.sender import Sender
from raptor_s3.wire.datagram import parse_datagram
from raptor_s3.wire.put_header import crc32_field, split_put_object
from raptor_s3.wire.transfer_state import StateType, TransferState

ID = "x" * 22
RTT_S = 0.1
KNOWN = Learned(RTT_S, 0.001, 0.001, None)
FIELDS = {"Bucket": "b", "Key": "k", "ChecksumCRC32": crc32_field(b"")}


def transfer(size: int = 10_000, timeout_s: float = 5.0, **options: Any) -> OutgoingTransfer:
    return OutgoingTransfer(PutRequest(ID, FIELDS, bytes(size), timeout_s, **options), 0.0, PathEstimates(KNOWN))


def send_all(put: OutgoingTransfer, now: float) -> list[tuple[int, int]]:
    """(SBN, ESI) of everything that `put` sends at `now`."""
    sent: list[tuple[int, int]] = []
    while put.backlog and put.start(now) and (run := put.take(10, now)) is not None:
        arena = bytearray(run.length * put.datagram_size)
        put.write(run, arena, 0, put.datagram_size)
        for start in range(0, len(arena), put.datagram_size):
            datagram = parse_datagram(arena[start : start + put.datagram_size])
            assert datagram.object_id == ID
            sent.append((datagram.sbn, datagram.esi))
    return sent


def state(type_: StateType, received: int = 0, sbn: int = 0, fields: Any = None) -> TransferState:
    return TransferState(type_, ID, sbn, received, fields)


@pytest.mark.parametrize("size", [0, 1000, 10_000, 100_000, 700_000])
def test_the_first_flight_is_source_symbols_and_the_expected_repair(size: int) -> None:
    put = transfer(size)
    sent = send_all(put, 0.0)
    for sbn in range(put.oti.source_blocks):
        symbols = put.oti.block_symbols(sbn)
        assert [esi for block, esi in sent if block == sbn] == list(range(flight_size(symbols, KNOWN.loss)))
    assert put.in_flight == len(sent)


def test_the_first_single_datagrams_on_an_unknown_path_have_company() -> None:
    path = PathEstimates()
    puts = [OutgoingTransfer(PutRequest(ID, FIELDS, b"x", 5.0), 0.0, path) for _ in range(INITIAL_REPAIR + 2)]
    assert [len(send_all(put, 0.0)) for put in puts] == [2] * INITIAL_REPAIR + [1, 1]
    path = PathEstimates()
    waiting = [OutgoingTransfer(PutRequest(ID, FIELDS, b"x", 5.0), 0.0, path) for _ in range(INITIAL_REPAIR + 1)]
    path.rtt.sample(0.15, 0.3)  # the handshake they waited for
    assert [len(send_all(put, 0.3)) for put in waiting] == [2] * INITIAL_REPAIR + [1]
    sparing = OutgoingTransfer(PutRequest(ID, FIELDS, b"x", 5.0, overhead=0.0), 0.0, PathEstimates())
    assert len(send_all(sparing, 0.0)) == 1
    known = PathEstimates(Learned(srtt_s=0.1, loss=0.001))
    assert len(send_all(OutgoingTransfer(PutRequest(ID, FIELDS, b"x", 5.0), 0.0, known), 0.0)) == 1


def test_a_fixed_overhead_takes_the_place_of_the_estimate() -> None:
    put = transfer(100_000, overhead=0.25)
    assert len(send_all(put, 0.0)) == put.oti.block_symbols(0) * 1.25


def test_symbol_ids_are_never_used_twice() -> None:
    put = transfer(100_000, timeout_s=60.0)
    sent = send_all(put, 0.0)
    now = 0.0
    for round_ in range(12):
        put.receive_state(state(StateType.PACKETS, min(round_ * 3, 90), fields={"Esi": round_}), now)
        now = put.get_timer()
        put.handle_timer(now)
        sent += send_all(put, now)
    assert len(sent) > 150
    assert len(set(sent)) == len(sent)


def test_silence_asks_with_little_and_less_and_less_often() -> None:
    put = transfer(100_000, timeout_s=60.0)
    send_all(put, 0.0)
    times, counts = [], []
    for _ in range(5):
        now = put.get_timer()
        assert put.handle_timer(now)
        times.append(now)
        counts.append(len(send_all(put, now)))
    pauses = [later - earlier for earlier, later in zip([0.0, *times], times, strict=False)]
    assert pauses[0] == pytest.approx(RTT_S * 1.06, abs=0.01)
    for shorter, longer in itertools.pairwise(pauses):
        assert longer == pytest.approx(2 * shorter, rel=0.01)
    assert counts == [2, 4, 8, 8, 8]
    assert put.silences == 5


def test_any_state_ends_the_row_of_silences() -> None:
    put = transfer(100_000, timeout_s=60.0)
    send_all(put, 0.0)
    for _ in range(3):
        put.handle_timer(put.get_timer())
        send_all(put, put.get_timer())
    put.receive_state(state(StateType.PACKETS, 10, fields={"Esi": 9}), 1.0)
    assert put.silences == 0


def test_a_report_is_answered_with_what_is_missing() -> None:
    put = transfer(100_000, timeout_s=60.0)
    flight = len(send_all(put, 0.0))
    symbols = put.oti.block_symbols(0)
    put.receive_state(state(StateType.PACKETS, symbols - 20, fields={"Esi": flight - 1, "Wait": 20_000}), RTT_S + 0.02)
    more = send_all(put, RTT_S + 0.02)
    assert len(more) == flight_size(20, put._path.loss.rate)
    assert min(esi for _, esi in more) == flight


def test_an_early_report_of_little_loss_changes_nothing() -> None:
    put = transfer(100_000)
    flight = len(send_all(put, 0.0))
    put.receive_state(state(StateType.PACKETS, 16, fields={"Esi": 15}), RTT_S)
    assert put.backlog == 0
    assert put.in_flight == flight - 16


def test_round_trips_are_those_of_the_datagram_that_a_report_names() -> None:
    put = transfer(100_000)
    put.start(0.0)
    put.take(10, 0.0)
    put.take(10, 0.04)
    feedback = put.receive_state(state(StateType.PACKETS, 12, fields={"Esi": 11, "Wait": 5000}), 0.2)
    assert feedback is not None
    assert feedback.rtt_s == pytest.approx(0.2 - 0.04 - 0.005)
    assert (feedback.delivered, feedback.lost) == (12, 0)


def test_karn_no_guess_after_a_question() -> None:
    put = transfer(1000)
    send_all(put, 0.0)
    now = put.get_timer()
    put.handle_timer(now)
    send_all(put, now)
    feedback = put.receive_state(state(StateType.COMPLETE, 0, fields={"ETag": "e"}), now + 0.01)
    assert feedback is not None
    assert feedback.rtt_s is None
    assert feedback.confirmed_s is None


def test_a_completion_tells_loss_and_round_trip() -> None:
    put = transfer(10_000)
    send_all(put, 0.0)
    put._extend(put._blocks[0], 12)
    send_all(put, 0.03)
    feedback = put.receive_state(state(StateType.COMPLETE, 11, fields={"ETag": "e"}), 0.13)
    assert feedback is not None
    assert (feedback.delivered, feedback.lost) == (8, 3)
    assert feedback.confirmed_s == pytest.approx(0.1)
    assert put.outcome is Ending.CONFIRMED
    assert put.answer == {"ETag": "e"}


@pytest.mark.parametrize(
    ("confirm", "type_", "ends"),
    [
        (Confirm.FILE, StateType.ENOUGH_PACKETS, False),
        (Confirm.FILE, StateType.BLOCK_COMPLETE, False),
        (Confirm.BLOCK, StateType.ENOUGH_PACKETS, False),
        (Confirm.BLOCK, StateType.BLOCK_COMPLETE, True),
        (Confirm.PACKETS, StateType.ENOUGH_PACKETS, True),
        (Confirm.PACKETS, StateType.PACKETS, False),
    ],
)
def test_what_each_confirmation_takes_for_success(confirm: Confirm, type_: StateType, ends: bool) -> None:
    put = transfer(700_000, confirm=confirm)
    send_all(put, 0.0)
    for sbn in range(put.oti.source_blocks):
        assert put.outcome is None
        put.receive_state(state(type_, 1, sbn), 0.1)
    assert put.outcome is (Ending.CONFIRMED if ends else None)


@pytest.mark.parametrize("confirm", [Confirm.NONE, Confirm.FILE])
def test_a_sender_keeps_nothing_of_a_put_that_has_ended(confirm: Confirm) -> None:
    sender = Sender(0.0, learned=KNOWN)
    put = transfer(5000, confirm=confirm)
    kept = weakref.ref(put)
    sender.add(put)
    while sender.next_run(0.0) is not None:
        pass
    sender.all_left(put)
    if confirm is Confirm.FILE:
        sender.receive_state(state(StateType.COMPLETE, 1), 0.1)
    assert sender.ended == [put]
    sender.ended.clear()
    del put
    gc.collect()
    assert kept() is None


def test_no_confirmation_ends_with_the_flight() -> None:
    put = transfer(10_000, confirm=Confirm.NONE)
    put.start(0.0)
    put.take(3, 0.0)
    put.all_left()
    assert put.outcome is None
    send_all(put, 0.0)
    assert put.outcome is None, "the caller may not have been able to send them"
    put.all_left()
    assert put.outcome is Ending.CONFIRMED


@pytest.mark.parametrize("confirm", [Confirm.NONE, Confirm.FILE])
def test_what_could_not_be_sealed_is_sent_again(confirm: Confirm) -> None:
    sender = Sender(0.0, learned=KNOWN)
    put = transfer(5000, confirm=confirm)
    sender.add(put)
    first = sender.next_run(0.0)
    assert first is not None
    sender.put_back(*first)
    assert not put.in_flight
    assert sender.next_run(0.0) == first


def test_enough_symbols_stop_the_flight() -> None:
    put = transfer(100_000)
    put.start(0.0)
    put.take(50, 0.0)
    put.receive_state(state(StateType.BLOCK_COMPLETE, 50), 0.1)
    assert put.backlog == 0
    assert put.take(10, 0.1) is None


def test_an_answered_receiver_is_left_alone_with_its_write() -> None:
    put = transfer(1000, timeout_s=60.0)
    send_all(put, 0.0)
    put.receive_state(state(StateType.BLOCK_COMPLETE, 1), 0.1)
    pauses, now = [], 0.1
    for _ in range(4):
        due = put.get_timer()
        put.handle_timer(due)
        assert len(send_all(put, due)) == 1
        put.receive_state(state(StateType.BLOCK_COMPLETE, 1), due + 0.1)
        pauses.append(due - now)
        now = due + 0.1
    assert pauses == sorted(pauses)
    assert pauses[-1] > 4 * pauses[0]


def test_the_time_to_live_fits_the_timeout_and_stands_in_the_header() -> None:
    put = transfer(1000, timeout_s=5.0)
    assert put.start(0.0)
    run = put.take(1, 0.0)
    assert run is not None
    arena = bytearray(put.datagram_size)
    put.write(run, arena, 0, put.datagram_size)
    data = bytes(parse_datagram(arena).symbol)[: put.oti.transfer_length]
    fields, body = split_put_object(data)
    assert 3000 <= fields["TtlMs"] <= 4000
    assert len(body) == 1000


def test_a_late_start_shortens_the_time_to_live() -> None:
    put = transfer(1000, timeout_s=5.0)
    assert put.start(3.0)
    assert put._deadline is not None
    assert 3.0 + sum(put._deadline) <= 5.0 + 1e-6


def test_what_can_not_be_sent_in_time_is_not_sent() -> None:
    put = transfer(1000, timeout_s=5.0)
    assert not put.start(4.9)
    assert put.outcome is Ending.NOTHING_SENT
    assert put.take(1, 4.9) is None


def test_an_unheard_put_goes_silent_and_cancels() -> None:
    put = transfer(1000, timeout_s=5.0)
    send_all(put, 0.0)
    last_symbol = 0.0
    now = 0.0
    while not put.wants_cancel:
        now = put.get_timer()
        put.handle_timer(now)
        if send_all(put, now):
            last_symbol = now
    assert put._deadline is not None
    assert last_symbol <= put._deadline.blind_s <= now < put._deadline.blind_s + 0.01
    assert parse_datagram(put.take_cancel(now)).is_cancel
    assert put.take(5, now) is None
    put.receive_state(state(StateType.CANCELLED), now + 0.1)
    assert put.outcome is Ending.CANCELLED


def test_a_heard_put_goes_on_until_its_time_to_live() -> None:
    put = transfer(100_000, timeout_s=5.0)
    send_all(put, 0.0)
    put.receive_state(state(StateType.PACKETS, 16, fields={"Esi": 15}), RTT_S)
    now = RTT_S
    while not put.wants_cancel:
        now = put.get_timer()
        put.handle_timer(now)
        send_all(put, now)
    assert put._deadline is not None
    assert now == pytest.approx(put._deadline.ttl_s)
    while put.outcome is None:
        now = put.get_timer()
        put.handle_timer(now)
    assert (put.outcome, now) == (Ending.TIMED_OUT, pytest.approx(5.0))


def test_a_cancel_is_beaten_by_the_success() -> None:
    put = transfer(1000)
    send_all(put, 0.0)
    put.cancel(0.05)
    put.receive_state(state(StateType.COMPLETE, 1, fields={"ETag": "e"}), 0.1)
    assert put.outcome is Ending.CONFIRMED


def test_new_keys_ask_again_at_once_but_only_what_was_not_answered() -> None:
    put = transfer(1000, timeout_s=60.0)
    send_all(put, 0.0)
    put.change_session(0.05)
    assert put.backlog == 0
    put.handle_timer(put.get_timer())
    send_all(put, 0.2)
    put.change_session(0.3)
    assert 1 <= put.backlog <= 10
    assert not put.is_heard


def test_after_the_blind_part_new_keys_end_the_put() -> None:
    put = transfer(100_000, timeout_s=5.0)
    send_all(put, 0.0)
    put.receive_state(state(StateType.PACKETS, 16, fields={"Esi": 15}), RTT_S)
    put.handle_timer(put.get_timer())
    put.change_session(3.0)
    assert send_all(put, 3.0) == [], "this receiver may know nothing of the transfer: its clock would start anew"
    put.handle_timer(3.0)
    assert put.wants_cancel


def test_after_the_blind_part_a_put_asks_under_its_own_keys_before_it_takes_new_ones() -> None:
    put = transfer(100_000, timeout_s=5.0)
    send_all(put, 0.0)
    assert not put.insist(0.1), "not heard yet: under new keys nothing is lost"
    put.receive_state(state(StateType.PACKETS, 16, fields={"Esi": 15}), RTT_S)
    assert not put.insist(0.2), "nor here, in the blind part"
    put.handle_timer(put.get_timer())
    send_all(put, 0.5)
    assert put.insist(3.0)
    assert put.backlog > 0
    send_all(put, 3.0)
    assert put.insist(3.1)
    assert put.backlog == 0, "once"
    put.receive_state(state(StateType.PACKETS, 20, fields={"Esi": 19}), 3.1)
    now = put.get_timer()
    put.handle_timer(now)
    assert put.insist(now), "these keys were good: they may be so again"
    for _ in range(3):
        send_all(put, now)
        now = put.get_timer()
        put.handle_timer(now)
    assert not put.insist(now), "silent for too long"
    assert put.outcome is None


@settings(max_examples=200, deadline=None)
@given(
    size=st.sampled_from([0, 1000, 30_000, 700_000]),
    steps=st.lists(
        st.one_of(
            st.tuples(
                st.just("state"),
                st.sampled_from(list(StateType)),
                st.integers(0, 70_000),
                st.integers(0, 255),
                st.none()
                | st.dictionaries(
                    st.sampled_from(["Esi", "Us", "Wait", "Code", "Message", "StatusCode", "ETag"]),
                    st.integers(-(2**70), 2**70)
                    | st.floats()
                    | st.text(max_size=3)
                    | st.none()
                    | st.lists(st.none(), max_size=1),
                    max_size=4,
                ),
            ),
            st.tuples(st.just("timer"), st.floats(0, 0.5)),
            st.tuples(st.just("send"), st.integers(1, 50)),
            st.tuples(st.just("session")),
            st.tuples(st.just("cancel")),
        ),
        max_size=40,
    ),
)
def test_no_state_at_no_time_does_harm(size: int, steps: list[tuple[Any, ...]]) -> None:
    """States are a peer's bytes: whatever they say, nothing crashes, nothing is sent twice, and the plan stays within bounds."""
    sender = Sender(0.0, learned=KNOWN)
    put = OutgoingTransfer(PutRequest(ID, FIELDS, bytes(size), 5.0), 0.0, sender.path)
    sender.add(put)
    now = 0.0
    sent: set[tuple[int, int]] = set()
    total = 0
    for step in steps:
        if step[0] == "state":
            sender.receive_state(TransferState(step[1], ID, step[3], step[2], step[4]), now)
        elif step[0] == "timer":
            now += step[1]
            sender.handle_timer(now)
        elif step[0] == "session":
            sender.change_session(put, now)
        elif step[0] == "cancel":
            sender.cancel(put, now)
        else:
            for _ in range(step[1]):
                item = sender.next_run(now)
                if item is None:
                    break
                assert put.outcome is None
                for esi in range(item[1].first_esi, item[1].first_esi + item[1].length):
                    assert (item[1].sbn, esi) not in sent
                    sent.add((item[1].sbn, esi))
        total = sum(put.oti.block_symbols(sbn) for sbn in range(put.oti.source_blocks))
        assert 0 <= put.backlog <= 4 * total + 200
        assert sender.get_timer() > 0
    now = 6.0
    sender.handle_timer(now)
    assert put.outcome is not None
    assert sender.ended == [put]
    assert len(sender) == 0
    assert sender._flight_bytes == 0


def test_errors_for_endings() -> None:
    refused = error_for(Ending.REJECTED, {"Code": "AccessDenied", "Message": "no", "StatusCode": 403}, 5)
    assert isinstance(refused, TransferRejected)
    assert refused.status == 403
    nonsense = error_for(Ending.REJECTED, {"Code": 7, "StatusCode": "x"}, 5)
    assert isinstance(nonsense, TransferRejected)
    assert (nonsense.code, nonsense.status) == ("InternalError", 500)
    assert isinstance(error_for(Ending.CANCELLED, None, 5), TransferCancelled)
    assert isinstance(error_for(Ending.TIMED_OUT, None, 5), ConfirmationTimeout)
    assert isinstance(error_for(Ending.NOTHING_SENT, None, 5), ConfirmationTimeout)


def test_small_puts_go_before_large_ones_and_those_in_their_order() -> None:
    sender = Sender(0.0, learned=KNOWN)
    ids = ["l" * 22, "m" * 22, "s" * 22]
    for object_id, size in zip(ids, [500_000, 500_000, 1000], strict=True):
        sender.add(OutgoingTransfer(PutRequest(object_id, FIELDS, bytes(size), 60.0), 0.0, sender.path))
    order: list[str] = []
    now = 0.0
    while sender.has_queue:
        item = sender.next_run(now)
        if item is None:
            now = min(sender.next_send_at(now), now + 0.1)
            sender.controller.window_bytes = 1e9
        elif not order or order[-1] != item[0].object_id:
            order.append(item[0].object_id)
    assert order == [ids[2], ids[0], ids[1]]


def test_an_object_id_can_not_be_used_twice() -> None:
    sender = Sender(0.0)
    sender.add(transfer())
    with pytest.raises(ValueError, match="in use"):
        sender.add(transfer())
