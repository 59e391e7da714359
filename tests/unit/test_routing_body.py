"""Bodies: measured without being read, read once, put back untouched."""

import io
import os

import pytest

from raptor_s3.routing.body import Body, size_at_a_glance
from raptor_s3.routing.parameters import Unsupported

DATA = bytes(range(256)) * 5


class Stream:
    """Readable only, a few octets at a time."""

    def __init__(self, data=DATA, step=100):
        self._file = io.BytesIO(data)
        self._step = step

    def read(self, size=-1):
        return self._file.read(self._step if size is None or size < 0 else min(size, self._step))


def read_all(stream):
    parts = []
    while part := stream.read(50):
        parts.append(part)
    return b"".join(parts)


def file_at(tmp_path, position):
    path = tmp_path / "body"
    path.write_bytes(DATA)
    file = path.open("rb")
    file.seek(position)
    return file


def bytesio_at(position):
    file = io.BytesIO(DATA)
    file.seek(position)
    return file


class TestSeekable:
    @pytest.mark.parametrize("position", [0, 1, 700, len(DATA), len(DATA) + 10])
    @pytest.mark.parametrize("kind", ["file", "BytesIO", "subclass"])
    def test_from_its_position_to_its_end(self, tmp_path, kind, position):
        class Own(io.BytesIO):
            pass

        raw = file_at(tmp_path, position) if kind == "file" else bytesio_at(position)
        if kind == "subclass":
            raw = Own(DATA)
            raw.seek(position)
        body = Body(raw)
        assert body.size_bytes == max(len(DATA) - position, 0)
        assert raw.tell() == position
        assert body.read(10_000) == DATA[position:]
        assert body.put_back() is raw
        assert raw.tell() == position
        assert raw.read() == DATA[position:]

    def test_a_body_that_was_carried_is_left_at_its_end(self):
        raw = bytesio_at(7)
        Body(raw).read(10_000)
        assert raw.read() == b""

    def test_a_file_that_shrank_goes_over_https(self, tmp_path):
        raw = file_at(tmp_path, 0)
        body = Body(raw)
        os.truncate(tmp_path / "body", 10)
        with pytest.raises(Unsupported, match="ended after 10 of 1280"):
            body.read(10_000)
        assert body.put_back().read() == DATA[:10]

    def test_a_file_that_grew_is_read_as_far_as_it_was_measured(self, tmp_path):
        raw = file_at(tmp_path, 0)
        body = Body(raw)
        with (tmp_path / "body").open("ab") as more:
            more.write(b"more")
        assert body.read(10_000) == DATA


class TestPlain:
    @pytest.mark.parametrize("raw", [DATA, bytearray(DATA), memoryview(DATA), b""])
    def test_octets(self, raw):
        body = Body(raw)
        assert body.size_bytes == len(raw)
        assert body.read(10_000) == bytes(raw)
        assert body.put_back() is raw

    def test_a_bytearray_may_change_while_it_travels(self):
        raw = bytearray(DATA)
        data = Body(raw).read(10_000)
        raw[:] = b""
        assert data == DATA


class TestNonSeekable:
    def test_short_enough(self):
        body = Body(Stream())
        assert body.size_bytes is None
        assert body.read(len(DATA)) == DATA
        assert body.size_bytes == len(DATA)
        assert read_all(body.put_back()) == DATA

    def test_over_the_limit_nothing_is_lost(self):
        body = Body(Stream())
        with pytest.raises(Unsupported, match="unknown length"):
            body.read(len(DATA) - 1)
        assert read_all(body.put_back()) == DATA

    @pytest.mark.parametrize("size", [-1, None])
    def test_the_rest_can_be_read_at_once(self, size):
        body = Body(Stream(step=10_000))
        with pytest.raises(Unsupported):
            body.read(100)
        assert body.put_back().read(size) == DATA

    def test_one_that_knows_its_length_is_not_touched_to_find_it(self):
        class Encoder(Stream):
            def __len__(self):
                return len(DATA)

        raw = Encoder()
        body = Body(raw)
        assert body.size_bytes == len(DATA)
        assert body.put_back() is raw
        assert body.read(len(DATA)) == DATA
        assert read_all(body.put_back()) == DATA

    def test_a_pipe(self):
        reading, writing = os.pipe()
        os.write(writing, DATA)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            body = Body(pipe)
            assert body.size_bytes is None
            assert body.read(10_000) == DATA

    def test_a_failing_stream_fails_as_it_would_without_us(self):
        class Cancelled(Exception):
            pass

        class Failing:
            def read(self, size=-1):
                raise Cancelled

        with pytest.raises(Cancelled):
            Body(Failing()).read(100)


class TestNotForUs:
    def test_text_files(self, tmp_path):
        with (tmp_path / "t").open("w+") as file, pytest.raises(Unsupported, match="text"):
            Body(file)

    def test_streams_of_text_are_put_back(self):
        class Text:
            def __init__(self):
                self._file = io.StringIO("text")

            def read(self, size=-1):
                return self._file.read(size)

        body = Body(Text())
        with pytest.raises(Unsupported, match="text"):
            body.read(100)
        assert body.put_back().read() == "text"

    def test_non_blocking_streams(self):
        class Busy:
            def __init__(self):
                self.parts = [b"a", None, b"b"]

            def read(self, size=-1):
                return self.parts.pop(0) if self.parts else b""

        body = Body(Busy())
        with pytest.raises(Unsupported, match="non-blocking"):
            body.read(100)
        assert read_all(body.put_back()) == b"ab"

    def test_not_a_body_at_all(self):
        with pytest.raises(Unsupported, match="int"):
            Body(5)


class TestS3Transfer:
    """ReadFileChunk reports progress only between signals, and takes it back when it is rewound."""

    def chunk(self, tmp_path, seen):
        from s3transfer.utils import ReadFileChunk

        (tmp_path / "f").write_bytes(DATA)
        return ReadFileChunk.from_filename(
            str(tmp_path / "f"),
            0,
            len(DATA),
            callbacks=[lambda bytes_transferred: seen.append(bytes_transferred)],
            enable_callbacks=False,
        )

    def test_progress_of_a_carried_body(self, tmp_path):
        seen = []
        with self.chunk(tmp_path, seen) as raw:
            body = Body(raw)
            assert (body.size_bytes, sum(seen)) == (len(DATA), 0)
            assert body.read(10_000) == DATA
            assert sum(seen) == len(DATA)

    def test_progress_is_taken_back_for_https(self, tmp_path):
        seen = []
        with self.chunk(tmp_path, seen) as raw:
            body = Body(raw)
            body.read(10_000)
            assert body.put_back() is raw
            assert sum(seen) == 0
            raw.read(10)
            assert sum(seen) == 0  # off again until the HTTPS request is made


class Touchy:
    """Whatever is done to it, it minds."""

    def __getattr__(self, name):
        raise RuntimeError(name)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: DATA, len(DATA)),
        (lambda path: bytearray(DATA), len(DATA)),
        (lambda path: bytesio_at(7), len(DATA) - 7),
        (lambda path: file_at(path, 9), len(DATA) - 9),
        (lambda path: Stream(), None),
        (lambda path: os.fdopen(os.pipe()[0], "rb"), None),
        (lambda path: Touchy(), None),
        (lambda path: None, None),
    ],
)
def test_a_glance_moves_nothing(tmp_path, make, expected):
    body = make(tmp_path)
    assert size_at_a_glance(body) == expected
    if expected and hasattr(body, "read"):
        assert len(body.read()) == expected
