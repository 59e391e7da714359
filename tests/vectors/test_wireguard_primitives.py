"""Hash, MAC, HMAC, KDF, AEADs, X25519 and TAI64N against published vectors and against another library (`cryptography`)."""

from __future__ import annotations

import hashlib
import hmac as standard_hmac
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import BLAKE2s
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from raptor_s3.errors import AuthenticationFailed
from raptor_s3.wireguard import symmetric
from raptor_s3.wireguard.constants import CONSTRUCTION, IDENTIFIER
from raptor_s3.wireguard.sodium import aead_open, aead_seal, x25519, x25519_public, xaead_open, xaead_seal

SUNSCREEN = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
AEAD_KEY = bytes(range(0x80, 0xA0))
AEAD_AD = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")


def test_blake2s_of_abc() -> None:
    """RFC 7693 appendix B."""
    expected = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"
    assert symmetric.hash_blake2s(b"abc").hex() == expected


def test_blake2s_self_test() -> None:
    """RFC 7693 appendix E: one digest over all sizes, keyed and not. `mac` is the keyed mode with 16 octets of output."""

    def sequence(length: int, seed: int) -> bytes:
        a, b = 0xDEAD4BAD * seed & 0xFFFFFFFF, 1
        out = bytearray()
        for _ in range(length):
            a, b = b, (a + b) & 0xFFFFFFFF
            out.append(b >> 24)
        return bytes(out)

    def digest(data: bytes, key: bytes, size: int) -> bytes:
        if key and size == 16:
            return symmetric.mac(key, data)
        if not key and size == 32:
            return symmetric.hash_blake2s(data)
        return hashlib.blake2s(data, key=key, digest_size=size).digest()

    whole = b""
    for size in (16, 20, 28, 32):
        for length in (0, 3, 64, 65, 255, 1024):
            data = sequence(length, length)
            whole += digest(data, b"", size) + digest(data, sequence(size, size), size)
    expected = "6a411f08ce25adcdfb02aba641451cec53c598b24f4fc787fbdc88797f4c1dfe"
    assert symmetric.hash_blake2s(whole).hex() == expected


@pytest.mark.parametrize("key_size", [0, 1, 8, 16, 32, 64])
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 300])
def test_hmac_is_the_standard_librarys(key_size: int, size: int) -> None:
    key, data = os.urandom(key_size), os.urandom(size)
    assert symmetric.hmac(key, data) == standard_hmac.new(key, data, hashlib.blake2s).digest()


def test_hmac_refuses_keys_that_would_be_hashed() -> None:
    with pytest.raises(ValueError):
        symmetric.hmac(bytes(65), b"")


@pytest.mark.parametrize(
    ("key", "data", "outputs"),
    [
        (
            b"test-key",
            b"test-input",
            (
                "6f0e5ad38daba1bea8a0d213688736f19763239305e0f58aba697f9ffc41c633",
                "df1194df20802a4fe594cde27e92991c8cae66c366e8106aaa937a55fa371e8a",
                "fac6e2745a325f5dc5d11a5b165aad08b0ada28e7b4e666b7c077934a4d76c24",
            ),
        ),
        (
            b"wireguard",
            b"wireguard",
            (
                "491d43bbfdaa8750aaf535e334ecbfe5129967cd64635101c566d4caefda96e8",
                "1e71a379baefd8a79aa4662212fcafe19a23e2b609a3db7d6bcba8f560e3d25f",
                "31e1ae48bddfbe5de38f295e5452b1909a1b4e38e183926af3780b0c1e1f0160",
            ),
        ),
        (
            b"",
            b"",
            (
                "8387b46bf43eccfcf349552a095d8315c4055beb90208fb1be23b894bc2ed5d0",
                "58a0e5f6faefccf4807bff1f05fa8a9217945762040bcec2f4b4a62bdfe0e86e",
                "0ce6ea98ec548f8e281e93e32db65621c45eb18dc6f0a7ad94178610a2f7338e",
            ),
        ),
    ],
)
def test_kdf_of_wireguard_go(key: bytes, data: bytes, outputs: tuple[str, str, str]) -> None:
    """The values of wireguard-go's device/kdf_test.go; KDF_1 and KDF_2 are the beginnings of KDF_3."""
    for count in (1, 2, 3):
        assert [output.hex() for output in symmetric.kdf(key, data, count)] == list(outputs[:count])


def test_kdf_is_hkdf() -> None:
    chaining_key, data = os.urandom(32), os.urandom(32)
    expected = HKDF(BLAKE2s(32), length=96, salt=chaining_key, info=b"").derive(data)
    assert b"".join(symmetric.kdf(chaining_key, data, 3)) == expected


def test_initial_chaining_key_and_hash() -> None:
    """The constants that implementations carry precomputed (boringtun, wireguard-rs)."""
    chaining_key = symmetric.hash_blake2s(CONSTRUCTION)
    assert chaining_key.hex() == "60e26daef327efc02ec335e2a025d2d016eb4206f87277f52d38d1988b78cd36"
    transcript = symmetric.hash_blake2s(chaining_key + IDENTIFIER)
    assert transcript.hex() == "2211b361081ac566691243db458ad5322d9c6c662293e8b70ee19c65ba079ef3"


def test_aead_of_rfc_8439() -> None:
    """RFC 8439 2.8.2."""
    nonce = bytes.fromhex("070000004041424344454647")
    sealed = aead_seal(AEAD_KEY, nonce, SUNSCREEN, AEAD_AD)
    assert sealed.hex() == (
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b"
        "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
        "3ff4def08e4b7a9de576d26586cec64b6116"
        "1ae10b594f09e26a7e902ecbd0600691"
    )
    assert aead_open(AEAD_KEY, nonce, sealed, AEAD_AD) == SUNSCREEN


def test_xaead_of_the_xchacha_draft() -> None:
    """draft-irtf-cfrg-xchacha-03 A.3.1."""
    nonce = bytes(range(0x40, 0x58))
    sealed = xaead_seal(AEAD_KEY, nonce, SUNSCREEN, AEAD_AD)
    assert sealed.hex() == (
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39"
        "ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
        "21f9664c97637da9768812f615c68b13b52e"
        "c0875924c1c7987947deafd8780acf49"
    )
    assert xaead_open(AEAD_KEY, nonce, sealed, AEAD_AD) == SUNSCREEN


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1400])
def test_aead_is_cryptographys(size: int) -> None:
    key, nonce, data, additional = os.urandom(32), os.urandom(12), os.urandom(size), os.urandom(size % 40)
    sealed = aead_seal(key, nonce, memoryview(data), additional)
    assert sealed == ChaCha20Poly1305(key).encrypt(nonce, data, additional)
    assert aead_open(key, nonce, bytearray(sealed), additional) == data


@pytest.mark.parametrize(("seal", "unseal", "nonce_size"), [(aead_seal, aead_open, 12), (xaead_seal, xaead_open, 24)])
def test_aeads_refuse_what_was_changed(seal, unseal, nonce_size) -> None:  # type: ignore[no-untyped-def]
    key, nonce = os.urandom(32), os.urandom(nonce_size)
    sealed = seal(key, nonce, b"plaintext", b"more")
    for position in range(len(sealed)):
        forged = bytearray(sealed)
        forged[position] ^= 0x10
        with pytest.raises(AuthenticationFailed):
            unseal(key, nonce, forged, b"more")
    for wrong in (sealed[:-1], sealed[:15], b""):
        with pytest.raises(AuthenticationFailed):
            unseal(key, nonce, wrong, b"more")
    with pytest.raises(AuthenticationFailed):
        unseal(key, nonce, sealed, b"less")
    for key_size, given in ((31, nonce_size), (33, nonce_size), (32, nonce_size - 1), (32, nonce_size + 1)):
        with pytest.raises(ValueError, match="octets"):
            seal(bytes(key_size), bytes(given), b"", b"")


def test_x25519_of_rfc_7748() -> None:
    """RFC 7748 5.2."""
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    assert x25519(scalar, point).hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"


def test_x25519_is_cryptographys() -> None:
    private, other = os.urandom(32), os.urandom(32)
    theirs = X25519PrivateKey.from_private_bytes(private)
    other_public = x25519_public(other)
    assert x25519_public(private) == theirs.public_key().public_bytes_raw()
    assert x25519(private, other_public) == theirs.exchange(X25519PublicKey.from_public_bytes(other_public))


@pytest.mark.parametrize("low_order", [bytes(32), (1).to_bytes(32, "little")])
def test_x25519_refuses_low_order_points(low_order: bytes) -> None:
    with pytest.raises(AuthenticationFailed):
        x25519(os.urandom(32), low_order)


def test_tai64n() -> None:
    """https://cr.yp.to/libtai/tai64.html: 2^62 + s is the label of TAI second s; 1970-01-01 00:00:00 UTC was TAI second 10."""
    assert symmetric.tai64n(0).hex() == "400000000000000a00000000"
    assert symmetric.tai64n(1_700_000_000_123_456_789).hex() == "400000006553f10a" + "075bcd15"
    labels = [symmetric.tai64n(ns) for ns in (0, 1, 999_999_999, 1_000_000_000, 2**40, 2**61)]
    assert labels == sorted(labels)
    assert {len(label) for label in labels} == {12}
