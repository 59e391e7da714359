"""What is remembered of a path: whatever the record holds, what comes out is usable."""

import json

import pytest

from raptor_s3.net import memory
from raptor_s3.net.datagram_size import DatagramSize
from raptor_s3.transfer.path import Learned
from raptor_s3.transfer.sender import Sender
from raptor_s3.wire.datagram import MAX_DATAGRAM

GOOD = Learned(0.05, 0.01, 0.02, 1e6, None)


def test_what_was_kept_comes_back():
    assert memory.parse_path(json.loads(json.dumps(memory.build(GOOD, DatagramSize(), None)))) == GOOD
    assert memory.parse_path({"path": {}}) == Learned()
    assert memory.parse_path({"path": {"srtt_s": 0, "rttvar_s": 0, "loss": None, "rate": 0}}) == Learned()


@pytest.mark.parametrize("value", [-1, 1e12, 1e400, float("nan"), 10**400, True, "0.1", [], {}], ids=repr)
@pytest.mark.parametrize("name", Learned._fields)
def test_nonsense_is_forgotten(name, value):
    assert memory.parse_path({"path": {**GOOD._asdict(), name: value}}) is None


@pytest.mark.parametrize("record", [{}, {"path": None}, {"path": []}, {"path": "x"}], ids=repr)
def test_no_record(record):
    assert memory.parse_path(record) is None


@pytest.mark.parametrize("name", ["srtt_s", "rttvar_s"])
@pytest.mark.parametrize("value", [61.0, 1e5, 1e11])
def test_a_round_trip_that_no_path_has_is_forgotten(name, value):
    """It would take minutes to come down, and make a window of terabytes meanwhile."""
    assert memory.parse_path({"path": {**GOOD._asdict(), name: value}}) is None


@pytest.mark.parametrize("loss", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("rate", [None, 1e-300, 1.0, 9e11])
@pytest.mark.parametrize("floor", [None, 1e-300, 9e11])
@pytest.mark.parametrize("srtt_s", [None, 1e-9, 59.0])
def test_a_sender_can_start_from_any_that_passes(loss, rate, floor, srtt_s):
    learned = memory.parse_path({"path": {"srtt_s": srtt_s, "rttvar_s": 59.0, "loss": loss, "rate": rate, "floor": floor}})
    assert learned is not None
    sender = Sender(1000.0, learned=learned)
    assert 2000 <= sender.controller.pacer.rate <= 1.25e9
    assert 0 < sender.path.loss.rate <= 0.3
    assert sender.path.rtt.timeout_s <= 10.0


@pytest.mark.parametrize(
    "entry",
    [None, [], 900, {"octets": 900}, {"octets": 900, "until": "x"}, {"octets": 7, "until": 1e10}, {"octets": [], "until": 0}],
)
def test_a_datagram_size_that_was_not_kept_by_us(entry):
    assert memory.parse_max_datagram({"max_datagram": entry}).octets == MAX_DATAGRAM
