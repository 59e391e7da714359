"""JSON as headers and states carry it: one line, UTF-8 as it is, no NaN.

`json.JSONEncoder` sets its C encoder up anew for every call, which takes as long as encoding a put header. Here it is set up
once, where CPython has it and it gives the same text. `JSONDecoder.decode` looks for white space with regular expressions first.
"""

from __future__ import annotations

import json
import json.encoder
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False)
_SAMPLE: Final = {"a": ['\u00e9"\\\n', 1, True, None], "b": {}}


def _make_encode() -> Callable[[Any], str]:
    try:
        in_c: Any = json.encoder.c_make_encoder(  # type: ignore[attr-defined]
            None, _ENCODER.default, json.encoder.encode_basestring, None, ":", ",", False, False, False
        )
        if "".join(in_c(_SAMPLE, 0)) == _ENCODER.encode(_SAMPLE):
            return lambda value: "".join(in_c(value, 0))
    except (AttributeError, TypeError, ValueError):
        pass
    return _ENCODER.encode


encode: Final = _make_encode()
"""The text of a JSON value. Raises ValueError for NaN and infinities, TypeError for what JSON has no word for, RecursionError."""


def decode(text: str, decoder: json.JSONDecoder) -> Any:
    """As `decoder.decode(text)`, sooner where nothing stands around an object. Raises ValueError, RecursionError."""
    if text[:1] == "{":
        try:
            value, end = decoder.scan_once(text, 0)  # type: ignore[attr-defined]
        except StopIteration:  # cut short: `decode` says where
            end = -1
        if end == len(text):
            return value
    return decoder.decode(text)
