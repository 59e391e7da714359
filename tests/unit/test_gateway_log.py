"""A flood of events does not flood the log."""

import logging

import pytest

from raptor_s3.gateway.log_throttle import INTERVAL_S, MAX_KINDS, OUTAGE_INTERVAL_S, ROUTINE, Throttle


class Log:
    """A logger whose handler has a Throttle, and what it lets through."""

    def __init__(self, least=logging.NOTSET):
        self.now = 100.0
        self.throttle = Throttle(least, clock=lambda: self.now)
        self.logger = logging.Logger("a logger")
        handler = logging.Handler()
        handler.addFilter(self.throttle)
        self.lines = []
        handler.emit = lambda record: self.lines.append(record.getMessage())
        self.logger.addHandler(handler)


@pytest.mark.parametrize(("level", "interval_s"), [(logging.INFO, INTERVAL_S), (logging.ERROR, OUTAGE_INTERVAL_S)])
def test_the_first_of_each_kind_is_said_at_once_and_the_rest_is_counted(level, interval_s):
    log = Log()
    for number in range(1000):
        log.logger.log(level, "put %d failed", number)
    log.logger.log(level, "something else")
    log.now += interval_s
    log.logger.log(level, "put %d failed", 7)
    log.now += interval_s
    log.logger.log(level, "put %d failed", 8)
    assert log.lines == ["put 0 failed", "something else", "put 7 failed (and 999 like it)", "put 8 failed"]
    for number in range(3 * MAX_KINDS):
        log.logger.log(level, f"a kind of its own {number}")
    assert len(log.throttle._kinds) <= MAX_KINDS


def test_what_others_have_said_is_one_line_of_bounded_length():
    log = Log()
    log.logger.error("no:\n%s", "x " * 5000)
    (line,) = log.lines
    assert line.startswith("no: x x")
    assert len(line) <= 500


def test_the_counters_come_as_often_as_they_were_asked_for():
    log = Log()
    for _ in range(10):
        log.logger.info("%s", "x" * 5000, extra=ROUTINE)
    assert [len(line) for line in log.lines] == [5000] * 10


def test_a_verbose_log_has_every_refusal_but_not_every_error():
    log = Log(logging.WARNING)
    for _ in range(10):
        log.logger.info("refused")
        log.logger.error("an outage")
    assert (log.lines.count("refused"), log.lines.count("an outage")) == (10, 1)
