"""The main job (`make demo`) as a test: the real template, gateway, aws command and boto3, by each of the backend's entrances."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.__main__ import run


@pytest.mark.timeout(600)
@pytest.mark.parametrize("destination", ["lambda", "sqs"])
def test_every_file_arrives_whole_by_the_expected_way(destination: str, tmp_path: Path) -> None:
    rows = run(tmp_path, destination)
    assert {row.step for row in rows} == {"aws s3 cp FILE", "aws s3 cp FOLDER", "boto3", "boto3, no gateway"}
    assert [(row.step, row.name, row.objection) for row in rows if row.objection] == []
    assert any(row.size_bytes == 1 << 20 and row.expected_route == "raptor" for row in rows)
