"""The editor of ~/.aws/config, checked against the parser that counts: botocore's."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import pytest
from botocore.configloader import load_config
from hypothesis import given
from hypothesis import strategies as st

from raptor_s3.cli.config_file import read_text, replace_file, section_of, set_nested, set_option

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """\
# the lab's machines
[default]
region = eu-central-1
s3 =
    max_concurrent_requests = 20
    # indented remark

    multipart_threshold = 64MB

[profile edge]
region=us-west-2
raptor =
\tendpoint = wg://old.example.com:1
\t; keep me
\tbuckets = a-*

# about the plugin
[plugins]
cli = x.y
"""


def parsed(tmp_path: Path, text: str) -> dict[str, Any]:
    path = tmp_path / "config"
    path.write_text(text, newline="")
    loaded: dict[str, Any] = load_config(str(path))
    return loaded


def test_a_setting_changes_and_every_other_line_stays(tmp_path: Path) -> None:
    text = set_nested(CONFIG, "profile edge", "raptor", {"endpoint": "wg://new.example.com:2", "threshold": "256KB"})
    assert [line for line in text.splitlines() if line not in CONFIG.splitlines()] == [
        "\tendpoint = wg://new.example.com:2",
        "\tthreshold = 256KB",
    ]
    assert [line for line in CONFIG.splitlines() if line not in text.splitlines()] == ["\tendpoint = wg://old.example.com:1"]
    assert parsed(tmp_path, text)["profiles"]["edge"]["raptor"] == {
        "endpoint": "wg://new.example.com:2",
        "buckets": "a-*",
        "threshold": "256KB",
    }


def test_a_profile_without_the_section_gets_it_at_its_end(tmp_path: Path) -> None:
    text = set_nested(CONFIG, "default", "raptor", {"endpoint": "wg://h:1"})
    assert text.index("wg://h:1") < text.index("[profile edge]")
    profiles = parsed(tmp_path, text)["profiles"]
    assert profiles["default"]["raptor"] == {"endpoint": "wg://h:1"}
    assert profiles["default"]["s3"] == {"max_concurrent_requests": "20", "multipart_threshold": "64MB"}


def test_a_new_profile_is_appended(tmp_path: Path) -> None:
    text = set_nested(CONFIG.rstrip("\n"), section_of("new one"), "raptor", {"endpoint": "wg://h:1"})
    loaded = parsed(tmp_path, text)
    assert loaded["profiles"]["new one"]["raptor"] == {"endpoint": "wg://h:1"}
    assert loaded["plugins"] == {"cli": "x.y"}


def test_an_empty_file_becomes_one_section(tmp_path: Path) -> None:
    assert set_nested("", "default", "raptor", {"endpoint": "wg://h:1"}) == "[default]\nraptor =\n    endpoint = wg://h:1\n"


def test_none_removes_a_setting(tmp_path: Path) -> None:
    text = set_nested(CONFIG, "profile edge", "raptor", {"buckets": None, "client_key": None})
    assert parsed(tmp_path, text)["profiles"]["edge"]["raptor"] == {"endpoint": "wg://old.example.com:1"}


def test_windows_line_ends_stay(tmp_path: Path) -> None:
    text = set_nested(CONFIG.replace("\n", "\r\n"), "profile edge", "raptor", {"threshold": "1MB"})
    assert text.count("\n") == text.count("\r\n")


def test_a_scalar_in_the_sections_place_is_replaced(tmp_path: Path) -> None:
    text = set_nested("[default]\nraptor = on\nregion = x\n", "default", "raptor", {"endpoint": "wg://h:1"})
    assert parsed(tmp_path, text)["profiles"]["default"] == {"raptor": {"endpoint": "wg://h:1"}, "region": "x"}


def test_the_plugin_line_goes_first(tmp_path: Path) -> None:
    text = set_option("[plugins]\ncli_legacy_plugin_path = /x\n", "plugins", "raptor", "raptor_s3.awscli_plugin", is_first=True)
    assert list(parsed(tmp_path, text)["plugins"]) == ["raptor", "cli_legacy_plugin_path"]
    assert set_option(text, "plugins", "raptor", "raptor_s3.awscli_plugin", is_first=True) == text


@pytest.mark.parametrize("value", ["a\nb = c", "a\r", "a\u2028b", "a\0", " padded"])
def test_a_value_can_not_break_out_of_its_line(value: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        set_nested(CONFIG, "default", "raptor", {"endpoint": value})


def test_a_section_name_can_not_break_out() -> None:
    with pytest.raises(ValueError, match="section"):
        set_nested(CONFIG, "x]\n[default", "raptor", {"endpoint": "y"})


def test_the_file_is_replaced_in_one_step_and_private(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles"
    real.write_bytes(b"[default]\n# caf\xe9\n")
    real.chmod(0o644)
    link = tmp_path / "config"
    link.symlink_to(real)
    replace_file(link, set_nested(read_text(link), "default", "raptor", {"endpoint": "wg://h:1"}))
    assert link.is_symlink()
    assert real.read_bytes() == b"[default]\n# caf\xe9\nraptor =\n    endpoint = wg://h:1\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["config", "dotfiles"]


NAMES = st.sampled_from(["endpoint", "threshold", "buckets", "confirm"])
VALUES = st.text("abc019:/=#;[]% *,-", min_size=1, max_size=20).map(str.strip).filter(bool)
INDENTS = st.sampled_from(["", "", "  ", "\t"])
JUNK = st.sampled_from(["", "# remark", "   ; remark", "   "])


@st.composite
def config_files(draw: st.DrawFn) -> str:
    lines: list[str] = []
    for section in draw(st.permutations(["default", "profile edge", "plugins", "profile 'b c'"])):
        lines += draw(st.lists(JUNK, max_size=2))
        lines.append(f"[{section}]")
        indent = draw(INDENTS)
        for key in draw(st.lists(st.sampled_from(["region", "raptor", "s3", "output"]), unique=True)):
            lines += draw(st.lists(JUNK, max_size=1))
            if key in ("raptor", "s3"):
                lines.append(f"{indent}{key} =")
                for name in draw(st.lists(NAMES, unique=True, max_size=3)):
                    lines += draw(st.lists(JUNK, max_size=1))
                    lines.append(f"{indent}   {name} = {draw(VALUES)}")
            else:
                lines.append(f"{indent}{key} = {draw(VALUES)}")
    return "\n".join(lines) + draw(st.sampled_from(["", "\n", "\n\n"]))


@given(config_files(), st.sampled_from(["default", "edge", "b c", "fresh"]), st.dictionaries(NAMES, VALUES, min_size=1))
def test_botocore_reads_the_new_values_and_all_the_old_ones(
    tmp_path_factory: pytest.TempPathFactory, text: str, profile: str, values: dict[str, str]
) -> None:
    tmp_path = tmp_path_factory.getbasetemp()
    expected = parsed(tmp_path, text)
    section = expected["profiles"].setdefault(profile, {})
    nested = section.get("raptor")
    section["raptor"] = {**(nested if isinstance(nested, dict) else {}), **values}
    edited = set_nested(text, section_of(profile), "raptor", values)
    assert parsed(tmp_path, edited) == expected
    assert set_nested(edited, section_of(profile), "raptor", values) == edited
