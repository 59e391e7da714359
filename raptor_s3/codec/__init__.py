"""RaptorQ, RFC 6330: an object as any number of symbols, of which as many as its source symbols, or a few more, give it back.

    ObjectTransmissionInformation   how an object is cut (F, T, Z)
    ObjectEncoder                   symbols, or whole datagrams in an arena
    ObjectDecoder                   symbols in any order -> the object
    DegreeTable                     RFC 6330's, or the one that the published raptor CLI uses

sans-IO: no clock, no socket, no threads, no randomness. Importing this imports neither numpy nor botocore, and the names
above only when they are first used. docs/codec.md tells how it works.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from raptor_s3.codec.decoder import ObjectDecoder
    from raptor_s3.codec.encoder import ObjectEncoder
    from raptor_s3.codec.oti import DegreeTable, ObjectTransmissionInformation

__all__ = ["DegreeTable", "ObjectDecoder", "ObjectEncoder", "ObjectTransmissionInformation"]

_HOMES = {
    "DegreeTable": "oti",
    "ObjectDecoder": "decoder",
    "ObjectEncoder": "encoder",
    "ObjectTransmissionInformation": "oti",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    globals()[name] = value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
