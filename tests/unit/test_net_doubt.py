"""Whose fault a silence is: keys are doubted rarely, the size of datagrams only on evidence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from raptor_s3.net.datagram_size import LEAST, DatagramSize
from raptor_s3.net.doubt import BLACK_HOLE_S, DEAD_AFTER, DEAD_AGAIN_S, Doubt
from raptor_s3.wire.datagram import MAX_DATAGRAM

RTO_S = 0.1


def put(**changes: Any) -> Any:
    """One that has asked in vain."""
    transfer = SimpleNamespace(
        silences=3, datagram_size=1319, may_have_vanished=True, request=SimpleNamespace(fields={}, max_datagram=MAX_DATAGRAM)
    )
    made = SimpleNamespace(
        transfer=transfer, is_heard=False, is_trial=False, shorter=False, is_replacement=False, cause=None,
        silent_since=float("inf"), max_datagram=MAX_DATAGRAM, started_at=1.0,
    )  # fmt: skip
    vars(made).update(changes)
    return made


def silent(silences: int) -> Any:
    return SimpleNamespace(silences=silences)


def test_keys_are_doubted_after_two_silences_and_then_less_and_less_often() -> None:
    doubt, doubted = Doubt(DatagramSize()), []
    assert not doubt.keys_may_be_dead(silent(DEAD_AFTER - 1), 0.0, RTO_S)
    for tenth in range(200):
        if doubt.keys_may_be_dead(silent(DEAD_AFTER), tenth / 10, RTO_S):
            doubted.append(tenth / 10)
    assert doubted == [0.0, 1.0, 3.0, 7.0, 15.0]


def test_keys_under_which_something_was_heard_lately_are_not_doubted() -> None:
    doubt = Doubt(DatagramSize())
    doubt.heard_at = 10.0
    assert not doubt.keys_may_be_dead(silent(5), 10.0 + RTO_S, RTO_S)
    assert doubt.keys_may_be_dead(silent(5), 10.0 + 3 * RTO_S, RTO_S)
    doubt.heard_at = 10.5
    assert not doubt.keys_may_be_dead(silent(5), 10.9, RTO_S), "once in a while is enough"
    assert doubt.keys_may_be_dead(silent(5), 10.4 + DEAD_AGAIN_S, RTO_S), "and no less often, after a sign of life"


def test_the_size_is_to_blame_where_something_short_passes() -> None:
    doubt, long = Doubt(DatagramSize()), put()
    doubt.note_silence(long, 5.0)
    assert doubt.wants_ping(long, 5.0)
    assert not doubt.blames_size(long, 5.0 + BLACK_HOLE_S)
    doubt.heard_at = 5.05
    assert doubt.wants_ping(long, 5.0), "another put's symbols may be as long as these"
    doubt.ping_answered_at = 5.05
    assert not doubt.wants_ping(long, 5.0)
    assert not doubt.blames_size(long, 5.0 + BLACK_HOLE_S / 2)
    assert doubt.blames_size(long, 5.001 + BLACK_HOLE_S)


def test_one_ping_serves_all_puts() -> None:
    doubt, puts = Doubt(DatagramSize()), [put() for _ in range(1000)]
    pings = 0
    for number, each in enumerate(puts):
        now = 5.0 + number / 1000
        doubt.note_silence(each, now)
        if doubt.wants_ping(each, now):
            doubt.pinged_at = now
            pings += 1
    assert 10 <= pings <= 11


@pytest.mark.parametrize("innocent", [{"datagram_size": LEAST}, {"may_have_vanished": False}])
def test_what_can_not_be_too_long_is_left_alone(innocent: dict[str, Any]) -> None:
    doubt, short = Doubt(DatagramSize()), put()
    vars(short.transfer).update(innocent)
    doubt.note_silence(short, 5.0)
    doubt.ping_answered_at = 6.0
    assert not doubt.wants_ping(short, 9.0)
    assert not doubt.blames_size(short, 9.0)


def test_one_that_was_heard_is_given_more_time() -> None:
    doubt, heard = Doubt(DatagramSize()), put(is_heard=True)
    heard.transfer.silences = 1
    doubt.note_silence(heard, 5.0)
    assert not doubt.wants_ping(heard, 5.0)
    heard.transfer.silences = DEAD_AFTER
    doubt.note_silence(heard, 5.3)
    assert heard.silent_since == 5.3


def test_receivers_of_bare_objects_are_not_pinged() -> None:
    """New keys are the only short thing of theirs that passes."""
    doubt, bare = Doubt(DatagramSize()), put()
    bare.transfer.request.fields = None
    doubt.note_silence(bare, 5.0)
    assert not doubt.wants_ping(bare, 5.0)
    doubt.ping_answered_at = 5.1
    assert not doubt.blames_size(bare, 6.0)
    doubt.renewed_at = 5.1
    assert doubt.blames_size(bare, 6.0)


def test_smaller_datagrams_are_tried_before_they_are_believed_in() -> None:
    doubt, tried = Doubt(DatagramSize()), put()
    assert doubt.shorten(tried, is_known=False)
    assert (tried.max_datagram, doubt.size.octets) == (1200, MAX_DATAGRAM)
    doubt.was_heard(tried, 2.0)
    assert (tried.is_trial, doubt.size.octets) == (False, MAX_DATAGRAM), "one may have met with an outage"
    beside, after = put(started_at=1.9), put(started_at=2.1)
    for other in (beside, after):
        assert doubt.shorten(other, is_known=False)
    doubt.was_heard(beside, 2.2)
    assert doubt.size.octets == MAX_DATAGRAM, "the same one"
    after.started_at = 2.3
    doubt.was_heard(after, 2.4)
    assert doubt.size.octets == 1200
    long = put()
    doubt.was_heard(long, 3.0)
    assert doubt.size.octets == MAX_DATAGRAM, "one of a longer cut has arrived"
    assert doubt.shorten(put(), is_known=True)
    assert doubt.size.octets == 1200
    small = put()
    small.transfer.datagram_size = LEAST
    assert not doubt.shorten(small, is_known=True)


def test_what_arrives_in_between_takes_the_suspicion_away() -> None:
    doubt = Doubt(DatagramSize())
    for started_at in (1.0, 2.0, 3.0):
        tried = put(started_at=started_at)
        doubt.shorten(tried, is_known=False)
        doubt.was_heard(tried, started_at + 0.5)
        doubt.was_heard(put(started_at=started_at + 0.6), started_at + 0.7)
    assert doubt.size.octets == MAX_DATAGRAM


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({}, True),
        ({"is_heard": True}, False),
        ({"cause": ValueError()}, False),
        ({"silent_since": 5.2}, False),
        ({"silent_since": float("inf")}, False),
        ({"is_heard": True, "shorter": True}, True),
    ],
    ids=repr,
)
def test_who_was_not_heard_in_its_blind_part_begins_again_if_a_ping_was(changes: dict[str, Any], again: bool) -> None:
    doubt, cancelled = Doubt(DatagramSize()), put(**{"silent_since": 5.0, **changes})
    doubt.ping_answered_at = 5.1
    assert doubt.try_shorter(cancelled) is again
    assert cancelled.shorter is again
    assert doubt.size.octets == MAX_DATAGRAM
