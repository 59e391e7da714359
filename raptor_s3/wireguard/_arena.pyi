from typing_extensions import Buffer

def seal_messages(
    aead_address: int,
    key: bytes,
    index: int,
    counter: int,
    arena: Buffer,
    count: int,
    size: int,
    stride: int,
    out: Buffer,
) -> int: ...
