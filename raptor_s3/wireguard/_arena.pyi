from typing_extensions import Buffer

def use_sodium(encrypt_address: int, decrypt_address: int, /) -> None: ...
def load_openssl(name: str, is_loaded: bool, /) -> None: ...
def seal_messages(
    with_openssl: bool,
    key: bytes,
    index: int,
    counter: int,
    arena: Buffer,
    count: int,
    size: int,
    stride: int,
    out: Buffer,
    /,
) -> int: ...
def seal_message(key: bytes, index: int, counter: int, plaintext: Buffer, /) -> bytes: ...
def open_fresh(key: bytes, index: int, window: Buffer, message: Buffer, limit: int, /) -> bytes | int: ...
