"""Inside the codec, too, imports point one way."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOM = Path(__file__).parents[2] / "raptor_s3" / "codec"


def _imported(path: Path) -> set[str]:
    """Modules of the room that this file imports, at its top or later."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "raptor_s3.codec":
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("raptor_s3.codec."):
            names.add(str(node.module).removeprefix("raptor_s3.codec."))
    return names


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {path.stem: _imported(path) for path in ROOM.glob("*.py") if path.stem != "__init__"}
    order = list(TopologicalSorter(graph).static_order())  # CycleError
    assert (
        order.index("header") < order.index("rows") < order.index("numpy_kernel") < order.index("kernel") < order.index("plans")
    )
