"""Attacks on the sender: states that no honest receiver sends, links that the limits don't foresee."""

import pytest

from raptor_s3.transfer.deadline import plan_deadline
from raptor_s3.transfer.outcome import Ending
from raptor_s3.wire.transfer_state import StateType, TransferState
from tests.network import Client, Network, Path, Server


def test_setup_works_without_the_attack():
    network = Network()
    client = Client(network, Path(network, delay_s=0.01), Path(network, delay_s=0.01), Server(network))
    transfer = client.put("key", bytes(20_000))
    network.run(5, lambda: transfer.outcome is not None)
    assert transfer.outcome is Ending.CONFIRMED


def test_a_wait_of_four_hundred_digits_is_no_crash():
    network = Network()
    server = Server(network)
    server.is_deaf = True
    client = Client(network, Path(network), Path(network), server)
    transfer = client.put("key", bytes(20_000))
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
