"""What `aws cloudformation package` does to template.yaml: local code becomes an object in S3, YAML becomes JSON.

Invariant: nothing but CodeUri is changed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path


class _Loader(yaml.SafeLoader):
    """SafeLoader that knows CloudFormation's short forms: !Ref x, !GetAtt a.b, !Sub ..."""


def _intrinsic(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    match node:
        case yaml.SequenceNode():
            value = loader.construct_sequence(node, deep=True)
        case yaml.MappingNode():
            value = loader.construct_mapping(node, deep=True)
        case _:
            value = loader.construct_yaml_str(node)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _intrinsic)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: node.value)  # 2012-10-17 is no date here


def packaged(template: Path, bucket: str, key: str) -> str:
    """The template as JSON, with every function's code at s3://bucket/key."""
    document = yaml.load(template.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    document["Globals"]["Function"]["CodeUri"] = {"Bucket": bucket, "Key": key}
    return json.dumps(document)
