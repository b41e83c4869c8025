"""Packs columns of a batch into PostgreSQL's binary arrays, without an object for each value.

An array is a header (one dimension, its element type, its length) and for every element four bytes of length and the
value. `bytes.join` writes the lengths between values of one width, which is the cheapest loop that Python has.
"""

from collections.abc import Iterable, Sequence
from struct import Struct

from psycopg import adapters
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format
from psycopg.types.string import ByteaBinaryLoader

_HEADER = Struct("!iiIii")
_LENGTH = Struct("!i").pack
_BOOL_OID, _BYTEA_OID, _INT8_OID, _INT2_OID, _INT4_OID, _UUID_OID = 16, 17, 20, 21, 23, 2950
_BOOLS = (b"\0", b"\1")
_UUID_BYTES = 16


class Uuid(bytes):
    """One uuid, ready to be sent."""

    __slots__ = ()


class Uuids(bytes):
    """A packed `uuid[]`."""

    __slots__ = ()


class Bytes(bytes):
    """A packed `bytea[]`."""

    __slots__ = ()


class Int2s(bytes):
    """A packed `int2[]`."""

    __slots__ = ()


class Int4s(bytes):
    """A packed `int4[]`."""

    __slots__ = ()


class Int8s(bytes):
    """A packed `int8[]`."""

    __slots__ = ()


class Bools(bytes):
    """A packed `bool[]`."""

    __slots__ = ()


def uuids(values: Sequence[bytes]) -> Uuids:
    """Packs UUIDs of 16 raw bytes."""
    return Uuids(_fixed(_UUID_OID, _UUID_BYTES, values))


def byte_strings(values: Sequence[bytes]) -> Bytes:
    """Packs byte strings of any length."""
    count = len(values)
    parts = [b""] * (2 * count)
    parts[::2] = map(_LENGTH, map(len, values))
    parts[1::2] = values
    return Bytes(_HEADER.pack(1, 0, _BYTEA_OID, count, 1) + b"".join(parts))


def int2s(values: Sequence[int]) -> Int2s:
    """Packs small integers."""
    return Int2s(_fixed(_INT2_OID, 2, _big_endian(values, 2)))


def int4s(values: Sequence[int]) -> Int4s:
    """Packs integers."""
    return Int4s(_fixed(_INT4_OID, 4, _big_endian(values, 4)))


def int8s(values: Sequence[int]) -> Int8s:
    """Packs large integers, times for example."""
    return Int8s(_fixed(_INT8_OID, 8, _big_endian(values, 8)))


def bools(values: Iterable[bool]) -> Bools:
    """Packs truths."""
    return Bools(_fixed(_BOOL_OID, 1, [_BOOLS[value] for value in values]))


def binary_adapters() -> AdaptersMap:
    """Returns how a connection sends packed arrays as they are, and gives uuid columns as 16 raw bytes."""
    found = AdaptersMap(adapters)
    found.register_loader("uuid", ByteaBinaryLoader)
    for dumper, packed in _DUMPERS.items():
        found.register_dumper(packed, dumper)
    return found


def _fixed(oid: int, width: int, values: Sequence[bytes]) -> bytes:
    count = len(values)
    length = _LENGTH(width)
    body = length.join(values)
    if len(body) != max(count * (width + 4) - 4, 0):
        raise ValueError(f"a value is not {width} bytes long, as the column asks")
    return _HEADER.pack(1, 0, oid, count, 1) + (length + body if count else b"")


def _big_endian(values: Sequence[int], width: int) -> list[bytes]:
    # Times and devices of a batch are mostly equal, so each is converted once.
    known = {value: value.to_bytes(width, "big", signed=True) for value in set(values)}
    return list(map(known.__getitem__, values))


class _Packed(Dumper):
    """Sends bytes that are already in PostgreSQL's format."""

    format = Format.BINARY

    def dump(self, obj: bytes) -> Buffer:
        return obj


class _UuidDumper(_Packed):
    oid = _UUID_OID


class _UuidsDumper(_Packed):
    oid = 2951


class _BytesDumper(_Packed):
    oid = 1001


class _Int2sDumper(_Packed):
    oid = 1005


class _Int4sDumper(_Packed):
    oid = 1007


class _Int8sDumper(_Packed):
    oid = 1016


class _BoolsDumper(_Packed):
    oid = 1000


_DUMPERS: dict[type[_Packed], type[bytes]] = {
    _UuidDumper: Uuid,
    _UuidsDumper: Uuids,
    _BytesDumper: Bytes,
    _Int2sDumper: Int2s,
    _Int4sDumper: Int4s,
    _Int8sDumper: Int8s,
    _BoolsDumper: Bools,
}
