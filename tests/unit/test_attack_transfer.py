"""Attacks on the sender: states that no honest receiver sends, links that the limits don't foresee."""

import pytest

from raptor_s3.transfer.deadline import plan_deadline
from raptor_s3.transfer.outcome import Ending
from raptor_s3.transfer.outgoing import OutgoingTransfer
from raptor_s3.transfer.path import Learned
from raptor_s3.transfer.plan import PutRequest
from raptor_s3.transfer.sender import Sender
from raptor_s3.wire.transfer_state import StateType, TransferState
from tests.network import Client, Network, Path, Server, random_loss


def unanswered(size: int):
    """A network, a client and a put of `size` octets to a server that never answers."""
    network = Network()
    server = Server(network)
    server.is_deaf = True
    client = Client(network, Path(network), Path(network), server)
    return network, client, client.put("key", bytes(size))


def test_setup_works_without_the_attack():
    network = Network()
    client = Client(network, Path(network, delay_s=0.01), Path(network, delay_s=0.01), Server(network))
    transfer = client.put("key", bytes(20_000))
    network.run(5, lambda: transfer.outcome is not None)
    assert transfer.outcome is Ending.CONFIRMED


def test_a_wait_of_four_hundred_digits_is_no_crash():
    network, client, transfer = unanswered(20_000)
    network.run(0.1)
    fields = {"Esi": 0, "Us": 1, "Wait": 10**400}
    client.sender.receive_state(TransferState(StateType.PACKETS, transfer.object_id, 0, 1, fields), network.now)


def test_an_object_that_needs_more_than_a_minute_arrives_within_its_timeout():
    """`--transport raptor` waits a second per megabit; the receiver gives up after 60 s, however fast symbols come."""
    network = Network()
    server = Server(network)
    client = Client(network, Path(network, rate=1e6, delay_s=0.02), Path(network, delay_s=0.02), server, timer_s=0.005)
    transfer = client.put("key", bytes(9_000_000), timeout_s=200.0)
    network.run(200, lambda: transfer.outcome is not None)
    assert transfer.outcome is Ending.CONFIRMED


@pytest.mark.parametrize(("timeout_s", "rtt_s"), [(0.75, 0.2), (5.0, 1.2)])
def test_time_to_settle_is_not_shorter_than_the_way_there(timeout_s, rtt_s):
    """A repeat that leaves at the end of the blind part may else be written after the sender has turned to HTTPS."""
    deadline = plan_deadline(timeout_s, 1.25 * rtt_s)
    assert deadline is not None
    assert deadline.blind_s + rtt_s / 2 + deadline.ttl_s <= timeout_s


def bare(sender, size, now=0.0):
    """A transfer of the published kind: its id is its path, and may come again."""
    transfer = OutgoingTransfer(PutRequest("path", None, bytes(size), 5.0), now, sender.path)
    sender.add(transfer)
    return transfer


def drain(sender, now=0.0):
    runs = []
    while (item := sender.next_run(now)) is not None:
        runs.append(item)
    return runs


def test_a_path_that_is_sent_again_is_not_taken_for_the_one_before():
    """The first one ended before all of it had left, and still stood in the queue."""
    sender = Sender(0.0)
    first = bare(sender, 100_000)
    drain(sender)
    sender.receive_state(TransferState(StateType.COMPLETE, "path"), 0.01)
    assert sender.ended == [first]
    sender.ended.clear()
    second = bare(sender, 100_000)
    assert {transfer for transfer, _ in drain(sender, 0.02)} == {second}
    assert sender.ended == []
    assert len(sender) == 1
    sender.receive_state(TransferState(StateType.COMPLETE, "path"), 0.03)
    assert sender.ended == [second]


def test_no_symbol_of_a_path_leaves_after_its_cancel():
    sender = Sender(0.0)
    transfer = bare(sender, 5000)
    assert drain(sender)
    sender.cancel(transfer, 0.01)
    now = 0.0
    while (now := sender.get_timer()) < float("inf"):
        sender.handle_timer(now)
        assert drain(sender, now) == []
        assert sender.take_cancels() == []
    assert transfer.outcome is Ending.TIMED_OUT
    assert now == float("inf")


def test_a_cancel_is_said_again_at_once_under_new_keys():
    network, client, transfer = unanswered(2000)
    sender = client.sender
    sender.cancel(transfer, network.now)
    assert sender.take_cancels() == [transfer]
    transfer.take_cancel(network.now)
    sender.change_session(transfer, network.now)
    assert sender.take_cancels() == [transfer]


def test_an_answer_from_memory_is_not_taken_for_the_delivery_of_what_never_left():
    """Who sends a path again soon is told by its first datagram that it is there."""
    sender = Sender(0.0, cap=1e5)
    transfer = bare(sender, 1_000_000)
    sent = sum(run.length for _, run in drain(sender))
    feedback = transfer.receive_state(TransferState(StateType.COMPLETE, "path"), 0.01)
    assert feedback.delivered <= sent


def test_a_rate_that_broke_down_comes_back():
    """So little was in flight at the least rate that each state passed for a lone small put's, and taught nothing: for ever."""
    network = Network()
    forward, backward = (Path(network, delay_s=0.02) for _ in range(2))
    broken = Learned(0.04, 0.005, 0.01, 2000.0)
    client = Client(network, forward, backward, Server(network), cap=300e3 / 8, learned=broken)
    transfer = client.put("key", bytes(5_000_000), timeout_s=400.0)
    network.run(100.0)
    assert client.sender.controller.pacer.rate > 200e3 / 8
    network.run(300.0, lambda: transfer.outcome is not None)
    assert transfer.outcome is Ending.CONFIRMED


@pytest.mark.parametrize(
    ("mbps", "rtt_s", "write_s", "learned_rtt_s"),
    [
        (0.2, 0.005, 0.0, 0.005),
        (1.0, 0.005, 0.0, 0.005),
        (None, 0.2, 0.0, 0.04),
        (None, 0.002, 0.1, 0.002),
        (None, 0.04, 0.4, 0.04),
    ],
    ids=["56 ms by the rate", "15 ms by the rate", "another way", "writes", "slow writes"],
)
def test_a_path_that_became_slower_than_the_timeout_is_not_asked_too_soon_for_ever(mbps, rtt_s, write_s, learned_rtt_s):
    """By Karn's rule alone: whatever was asked about tells no round trip, and everything is asked about."""
    network = Network()
    rate = None if mbps is None else mbps * 1e6
    forward, backward = (Path(network, rate, rtt_s / 2, 1.0) for _ in range(2))
    learned = Learned(learned_rtt_s, learned_rtt_s / 16, 0.01, 1e6)
    client = Client(network, forward, backward, Server(network, write_s=write_s), learned=learned)
    for number in range(60):
        transfer = client.put(str(number), bytes(1000))
        network.run(5, lambda transfer=transfer: transfer.outcome is not None)
        assert transfer.outcome is Ending.CONFIRMED
        if number == 39:
            sent = len(client.sent_at)
    assert len(client.sent_at) - sent <= 24, "the last twenty"


def test_a_blackout_does_not_make_the_path_look_too_slow_for_puts():
    """Many puts are asked about at once: one doubling, not one each."""
    network = Network()
    forward = Path(network, 20e6, 0.02, fate=random_loss(0.01, 1))
    client = Client(network, forward, Path(network, 20e6, 0.02), Server(network))
    for number in range(64):
        client.put(f"warm {number}", bytes(1000))
    network.run(1.0)
    fate, begin = forward.fate, network.now
    forward.fate = lambda now: 0 if now < begin + 1.5 else fate(now)
    for number in range(64):
        client.put(f"dark {number}", bytes(1000))
    network.run(4.0)
    assert client.sender.path.rtt.timeout_s < 0.3
    assert client.sender.path.confirmation.timeout_s < 0.3
    transfer = client.put("after", bytes(1000), timeout_s=0.7)
    network.run(0.7, lambda: transfer.outcome is not None)
    assert transfer.outcome is Ending.CONFIRMED


def test_receivers_that_do_not_say_what_completed_a_block_are_no_reason_to_slow_down():
    """A datagram that left later, taken for the one, gives a round trip that no path has: from then on there is a queue."""
    network = Network()
    forward, backward = Path(network, 20e6, 0.075), Path(network, 20e6, 0.075)
    client = Client(network, forward, backward, Server(network))
    sender, names = client.sender, iter(range(100))

    def next_one(_=None):
        for name in names:
            sender.add(OutgoingTransfer(PutRequest(f"path {name}", None, bytes(100_000), 30.0), network.now, sender.path))
            client.pump()
            break

    client.on_end = next_one
    for _ in range(16):
        next_one()
    network.run(30.0, lambda: len(client.ended) == 100)
    assert sender.path.rtt.min_s >= 0.15
    assert sender.controller.bandwidth * 8 > 15e6
