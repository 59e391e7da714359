"""A flood of events does not flood the log."""

import logging

from raptor_s3.gateway.log_throttle import MAX_TEMPLATES, Throttle


class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def test_one_a_second_of_each_message_and_the_rest_is_counted():
    now = [100.0]
    lines, throttle = Lines(), Throttle(lambda: now[0])
    lines.addFilter(throttle)
    logger = logging.Logger("a logger")
    logger.addHandler(lines)
    for number in range(1000):
        logger.error("put %d failed", number)
    logger.error("something else")
    now[0] += 1.0
    logger.error("put %d failed", 7)
    now[0] += 1.0
    logger.error("put %d failed", 8)
    assert lines.lines == ["put 0 failed", "something else", "put 7 failed (and 999 like it)", "put 8 failed"]
    for number in range(3 * MAX_TEMPLATES):
        logger.error(f"a template of its own {number}")
    assert len(throttle._left_out) <= MAX_TEMPLATES
