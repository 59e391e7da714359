"""RaptorQ, RFC 6330: any object as any number of symbols, any K or a few more of which give it back.

    ObjectTransmissionInformation   how an object is cut (F, T, Z)
    ObjectEncoder                   symbols, or whole datagrams in an arena
    ObjectDecoder                   symbols in any order -> the object
    DegreeTable                     RFC 6330's, or the one that the published raptor CLI uses

sans-IO: no clock, no socket, no threads, no randomness. Importing it imports neither numpy nor botocore.
"""

from __future__ import annotations

from raptor_s3.codec.decoder import ObjectDecoder
from raptor_s3.codec.encoder import ObjectEncoder
from raptor_s3.codec.oti import DegreeTable, ObjectTransmissionInformation

__all__ = ["DegreeTable", "ObjectDecoder", "ObjectEncoder", "ObjectTransmissionInformation"]
