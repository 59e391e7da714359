"""RFC 6330's tables and the symbols that follow from them, frozen: what `raptorq` 2.0.0 computed, installed or not."""

from __future__ import annotations

import hashlib
import random

import pytest

from raptor_s3.codec import DegreeTable, ObjectEncoder, ObjectTransmissionInformation, kernel, plans
from raptor_s3.codec.header import plan_header
from raptor_s3.codec.tables import RAND_TABLES, RFC5053_DEGREES, RFC6330_DEGREES, SYSTEMATIC_INDICES

# SHA-256, first half, of the thirty repair symbols after the source symbols; T = 8, data = random.Random(K).randbytes(8 * K)
REPAIR_DIGESTS = [
    (1, "d8a03e13a52b8c59b74168459fbbaf06"),
    (2, "5d34d874b25d2807146a378575748931"),
    (8, "fa9dc835cd86afd9a2acf2dda44636a8"),
    (10, "3ff1799b5675f2888443b50f49ef46c8"),
    (11, "fe1e632974e37c60795d632749a4b0c9"),
    (26, "3b437fddea6356918935bf8f3b96a06f"),
    (64, "30661a6939ac995643d6131fcb18fa9d"),
    (128, "348735ada40459c2d772daaac9bbf514"),
    (257, "4ce0b4dd33f385616bf99f15f334dad2"),
    (512, "a19da41ef471eebdd29a0398f997a08a"),
    (1000, "67f02c4181ed8c10e89e0ae39660f63f"),
    (2048, "03d7ce33d9c032983f31334c83a2a747"),
    (2500, "378ce2a7ba8ca1ca366ecfd203b2afb1"),
    (10_017, "fb8a9a67523f5f23f676479c19e13fc8"),
    (56_403, "3eb7eefcf050f67b57fbf1bd204351b4"),
]
# The same for RFC 5053's degrees, from this codec: there is no other implementation
PUBLISHED_DIGESTS = [
    (1, "fffb9e6264de6baaa315881436f9ac4f"),
    (8, "a75b78685baab09a70a4b54930caa9cf"),
    (16, "9d59ce11e1359c81ed9ad6fed1c6f6df"),
    (64, "36353b9066f8afd0b1338a5ebaca5c54"),
    (512, "dbb286a50519e8e794ad4b962235a040"),
]


def repair_digest(symbols: int, table: DegreeTable) -> str:
    data = random.Random(symbols).randbytes(symbols * 8)
    encoder = ObjectEncoder(data, ObjectTransmissionInformation(len(data), 8, 1), table)
    repair = b"".join([encoder.symbol(0, symbols + i) for i in range(30)])
    return hashlib.sha256(repair).hexdigest()[:32]


@pytest.mark.parametrize(("symbols", "digest"), REPAIR_DIGESTS)
def test_repair_symbols(symbols: int, digest: str) -> None:
    assert repair_digest(symbols, DegreeTable.RFC6330) == digest


@pytest.mark.parametrize(("symbols", "digest"), [row for row in REPAIR_DIGESTS if row[0] <= 2500])
def test_repair_symbols_of_the_numpy_twin(symbols: int, digest: str) -> None:
    kernel.use("numpy")
    plans.forget_plans()
    try:
        assert repair_digest(symbols, DegreeTable.RFC6330) == digest
    finally:
        kernel.use(kernel.available()[0])
        plans.forget_plans()


@pytest.mark.parametrize(("symbols", "digest"), PUBLISHED_DIGESTS)
def test_repair_symbols_of_the_published_cli(symbols: int, digest: str) -> None:
    assert repair_digest(symbols, DegreeTable.RFC5053) == digest


def test_the_tables_are_the_rfcs() -> None:
    assert hashlib.sha256(RAND_TABLES).hexdigest() == "39312b90f8ce970c763a8fd909df695fa23ef8f26c6a83409126221f1c3e3e23"
    rows = hashlib.sha256(repr(SYSTEMATIC_INDICES).encode()).hexdigest()
    assert rows == "424222c2c49d8c5100b2bdd1a9bbc2d6df4c24e81eb266590a3ba2964dfe9de6"


def test_table_2_has_the_properties_that_the_rfc_states() -> None:
    def is_prime(number: int) -> bool:
        return all(number % divisor for divisor in range(2, int(number**0.5) + 1))

    assert len(SYSTEMATIC_INDICES) == 477
    assert (SYSTEMATIC_INDICES[0][0], SYSTEMATIC_INDICES[-1][0]) == (10, 56_403)
    assert [row[0] for row in SYSTEMATIC_INDICES] == sorted({row[0] for row in SYSTEMATIC_INDICES})
    for padded, _, s, h, w in SYSTEMATIC_INDICES:
        assert is_prime(s)
        assert is_prime(w)
        assert w > s
        assert 10 <= h <= 16
        assert w < padded + s + h


def test_degrees_end_at_the_whole_range() -> None:
    for table in (RFC6330_DEGREES, RFC5053_DEGREES):
        assert [bound for _, bound in table] == sorted(bound for _, bound in table)
        assert table[-1][1] == 1 << 20


def _singular(table: DegreeTable, least: int, most: int) -> list[int]:
    singular = []
    for padded, *_ in SYSTEMATIC_INDICES:
        if least <= padded <= most:
            try:
                kernel.active.make_intermediate(plan_header(padded, table), bytes(padded), 0, padded, padded, 1)
            except ValueError:
                singular.append(padded)
    return singular


@pytest.mark.parametrize("table", DegreeTable)
def test_every_block_with_a_generator_is_systematic(table: DegreeTable) -> None:
    assert _singular(table, 1, plans.DENSE_SYMBOLS) == []


@pytest.mark.slow
@pytest.mark.parametrize(("table", "singular"), [(DegreeTable.RFC6330, []), (DegreeTable.RFC5053, [2802, 4318])])
def test_larger_blocks_are_systematic_too_but_for_two_of_the_published_cli(table: DegreeTable, singular: list[int]) -> None:
    """RFC 5053's degrees were not chosen for RFC 6330's J(K'): docs/errata.md, C1."""
    assert _singular(table, plans.DENSE_SYMBOLS + 1, 56_403) == singular
