"""The editor of ~/.aws/config: sets a nested section of one profile and leaves every other byte as it was.

botocore reads the file with `configparser`, and takes the indented lines under a key with an empty value as a nested section:

    [profile edge]
    region = us-west-2
    raptor =
        endpoint = wg://gateway.example.com:51820

`_classify` follows configparser's own rule for what a line is, so that both see the same file.

Invariant: comments, blank lines, line ends, order and other profiles survive; the file is replaced in one step and is 0600 after.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECTION = re.compile(r"\[(?P<name>.+)\]")
_OPTION = re.compile(r"(?P<key>.*?)\s*[=:]\s*(?P<value>.*)$")
_SETTING_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(slots=True)
class _Line:
    text: str
    kind: str  # section, option, continuation, or "" for comments and blank lines
    name: str = ""  # of the section or option
    value: str = ""
    indent: str = ""


def section_of(profile: str) -> str:
    """The section of ~/.aws/config that holds a profile.

    >>> section_of("default"), section_of("edge"), section_of("my edge")
    ('default', 'profile edge', "profile 'my edge'")
    """
    if profile == "default":
        return profile
    return f"profile {profile}" if re.fullmatch(r"[\w.@/+-]+", profile) else f"profile '{profile}'"


def set_nested(text: str, section: str, key: str, values: Mapping[str, str | None]) -> str:
    """`text` with `values` set under `key` of `[section]`; a value of None removes that setting.

    A missing section is appended. Raises ValueError for names or values that would break out of their line.
    """
    for name, value in values.items():
        if not _SETTING_NAME.fullmatch(name) or (value is not None and not _fits_a_line(value)):
            raise ValueError(f"{name} can't be written to a config file: a setting is one line of text")
    lines, newline = _read(text, section)
    start, end = _bounds(lines, section, newline)
    head = _find_option(lines, start, end, key)
    if head is None:
        at = _last_content(lines, start, end)
        lines.insert(at, _Line(f"{key} ={newline}", "option"))
        head, stop = at, at + 1
    else:
        stop = _option_end(lines, head, end)
        if lines[head].value:  # it was no section, but one value
            lines[head].text = f"{lines[head].indent}{key} ={newline}"
            stop = head + 1
    lines[head + 1 : stop] = _merged(lines[head + 1 : stop], lines[head].indent, values, newline)
    return _join(lines, newline)


def set_option(text: str, section: str, key: str, value: str, *, is_first: bool = False) -> str:
    """`text` with `key = value` in `[section]`; a new key goes to the section's end, or with `is_first` right below its head."""
    if not _SETTING_NAME.fullmatch(key) or not _fits_a_line(value):
        raise ValueError(f"{key} can't be written to a config file: a setting is one line of text")
    lines, newline = _read(text, section)
    start, end = _bounds(lines, section, newline)
    head = _find_option(lines, start, end, key)
    if head is not None:
        lines[head : _option_end(lines, head, end)] = [_Line(f"{lines[head].indent}{key} = {value}{newline}", "option")]
    else:
        first = next((line for line in lines[start + 1 : end] if line.kind == "option"), None)
        indent = first.indent if first else ""
        at = start + 1 if is_first else _last_content(lines, start, end)
        lines.insert(at, _Line(f"{indent}{key} = {value}{newline}", "option"))
    return _join(lines, newline)


def get_option(text: str, section: str, key: str) -> str:
    """The value of `key` in `[section]`, "" when it is not there. Only the first line of a nested value."""
    wanted = _words(section)
    inside = False
    for line in _classify(text):
        if line.kind == "section":
            inside = _words(line.name) == wanted
        elif inside and line.kind == "option" and line.name == key.lower():
            return line.value
    return ""


def read_text(path: Path) -> str:
    """The file's text, "" when it does not exist. Bytes that are not UTF-8 come back as they were when written again."""
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""


def replace_file(path: Path, text: str) -> None:
    """Write `text` to `path` in one step, 0600; a symbolic link keeps pointing to the file that is replaced."""
    path = path.resolve()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600, O_EXCL
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _classify(text: str) -> list[_Line]:
    lines = []
    in_section = in_option = False
    level = 0
    for raw in re.findall(r"[^\n]*\n|[^\n]+", text):
        content = raw.strip()
        if not content or content.startswith(("#", ";")):
            lines.append(_Line(raw, ""))
            continue
        indent = raw[: len(raw) - len(raw.lstrip())]
        if in_section and in_option and len(indent) > level:
            lines.append(_Line(raw, "continuation", value=content, indent=indent))
            continue
        level = len(indent)
        if match := _SECTION.match(content):
            in_section, in_option = True, False
            lines.append(_Line(raw, "section", match["name"], indent=indent))
        elif match := _OPTION.match(content):
            in_option = True
            lines.append(_Line(raw, "option", match["key"].strip().lower(), match["value"], indent))
        else:
            lines.append(_Line(raw, "option", content.lower(), indent=indent))
    return lines


def _read(text: str, section: str) -> tuple[list[_Line], str]:
    if not _fits_a_line(section) or "]" in section:
        raise ValueError(f"{section!r} can't be the name of a section")
    return _classify(text), "\r\n" if text.count("\r\n") * 2 > text.count("\n") else "\n"


def _bounds(lines: list[_Line], section: str, newline: str) -> tuple[int, int]:
    """Where `[section]` starts and ends; it is appended to `lines` if it is not there."""
    wanted = _words(section)
    heads = [index for index, line in enumerate(lines) if line.kind == "section"]
    for position, index in enumerate(heads):
        if _words(lines[index].name) == wanted:
            return index, heads[position + 1] if position + 1 < len(heads) else len(lines)
    if lines and lines[-1].text.strip():
        _end_with(lines[-1], newline)
        lines.append(_Line(newline, ""))
    lines.append(_Line(f"[{section}]{newline}", "section", section))
    return len(lines) - 1, len(lines)


def _words(section: str) -> list[str]:
    try:
        return shlex.split(section)  # as botocore.configloader.build_profile_map does
    except ValueError:
        return [section]


def _find_option(lines: list[_Line], start: int, end: int, key: str) -> int | None:
    return next((i for i in range(start + 1, end) if lines[i].kind == "option" and lines[i].name == key.lower()), None)


def _option_end(lines: list[_Line], head: int, end: int) -> int:
    """Past the last continuation of the option at `head`; comments and blank lines after that belong to what follows."""
    last = head + 1
    for index in range(head + 1, end):
        if lines[index].kind == "continuation":
            last = index + 1
        elif lines[index].kind:
            break
    return last


def _last_content(lines: list[_Line], start: int, end: int) -> int:
    while end > start + 1 and not lines[end - 1].text.strip():
        end -= 1
    return end


def _merged(nested: list[_Line], head_indent: str, values: Mapping[str, str | None], newline: str) -> list[_Line]:
    rest = dict(values)
    indent = next((line.indent for line in nested if line.kind), head_indent + "    ")
    merged = []
    for line in nested:
        name = line.value.partition("=")[0].strip() if line.kind else ""
        if name not in values:
            merged.append(line)
        elif (value := rest.pop(name, None)) is not None:
            merged.append(_Line(f"{line.indent}{name} = {value}{newline}", "continuation"))
    merged += [_Line(f"{indent}{name} = {value}{newline}", "continuation") for name, value in rest.items() if value is not None]
    return merged


def _fits_a_line(text: str) -> bool:
    # configparser reads lines as text files do; other line separators of str.splitlines() would cut botocore's nested lines.
    return len(text.splitlines()) <= 1 and not text.endswith(("\n", "\r")) and "\0" not in text and text == text.strip()


def _end_with(line: _Line, newline: str) -> None:
    if not line.text.endswith("\n"):
        line.text += newline


def _join(lines: list[_Line], newline: str) -> str:
    for line in lines[:-1]:
        _end_with(line, newline)
    return "".join(line.text for line in lines)
