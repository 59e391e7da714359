"""Whatever a body is and however it trickles, what was taken off it for the fast path comes back for HTTPS, octet for octet."""

import io

from hypothesis import given
from hypothesis import strategies as st

from raptor_s3.routing.body import Body
from raptor_s3.routing.parameters import Unsupported


class Trickle:
    """A stream that yields as much as `steps` says, call by call, and can't rewind."""

    def __init__(self, data, steps):
        self._file = io.BytesIO(data)
        self._steps = steps
        self._calls = 0

    def read(self, size=-1):
        step = self._steps[self._calls % len(self._steps)]
        self._calls += 1
        return self._file.read(step if size is None or size < 0 else min(size, step))


def read_all(stream, step):
    parts = []
    while part := stream.read(step):
        parts.append(part)
    return b"".join(parts)


BODIES = st.binary(max_size=300)
STEPS = st.lists(st.integers(1, 50), min_size=1, max_size=5)


@given(BODIES, STEPS, st.integers(0, 350), st.integers(1, 60))
def test_streams(data, steps, limit, step):
    body = Body(Trickle(data, steps))
    try:
        assert body.read(limit) == data
        assert len(data) <= limit
    except Unsupported:
        assert len(data) > limit
    assert read_all(body.put_back(), step) == data


@given(BODIES, STEPS, st.integers(0, 350), st.integers(1, 60))
def test_streams_with_a_length_that_may_be_wrong(data, steps, length, step):
    body = Body(Trickle(data, steps))
    body.expect(length)
    try:
        assert body.read(1000) == data[:length]
        expected = data[:length]  # as much as was announced
    except Unsupported:
        assert len(data) < length
        expected = data
    assert read_all(body.put_back(), step) == expected


@given(BODIES, st.integers(0, 350), st.booleans())
def test_files(data, position, is_plain):
    raw = io.BytesIO(data) if is_plain else io.BufferedReader(io.BytesIO(data))
    raw.seek(position)
    body = Body(raw)
    assert body.read(1000) == data[position:]
    assert body.put_back() is raw
    assert raw.tell() == position
    assert raw.read() == data[position:]
