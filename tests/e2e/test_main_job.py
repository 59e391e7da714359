"""The main job (`make demo`) as a test: the real template, gateway, aws command and boto3, by each of the backend's entrances."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.__main__ import run


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("destination", "threshold"),
    # A queue carries one datagram per message, ten to an invocation: 1 MB by that way would test the emulation's speed.
    [("lambda", 1 << 20), ("sqs", 256 << 10)],
)
def test_every_file_arrives_whole_by_the_expected_way(destination: str, threshold: int, tmp_path: Path) -> None:
    rows = run(tmp_path, destination, threshold)
    assert {row.step for row in rows} == {"aws s3 cp FILE", "aws s3 cp FOLDER", "boto3", "boto3, no gateway"}
    assert [(row.step, row.name, row.objection) for row in rows if row.objection] == []
    assert {row.expected_route for row in rows if row.size_bytes == threshold} <= {"raptor"}
