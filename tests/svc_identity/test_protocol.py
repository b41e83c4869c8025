"""Proofs, tokens, codes, pages and cursors."""

import hashlib

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from svc_identity.errors import CursorExpiredError, InvalidPageTokenError, InvalidProofError, LinkCodeNotFoundError
from svc_identity.model import (
    Change,
    ChangeKind,
    Cursor,
    Device,
    DeviceId,
    DeviceRef,
    Phone,
    Session,
    SessionId,
    SigningKey,
    UserId,
)
from svc_identity.protocol import code, cursor, identifier, page, proof, source, token
from tests.svc_identity.people import RANDOM, START_MS, public_key

USER = UserId(bytes(range(16)))
REF = DeviceRef(USER, DeviceId(2))
PEPPER = b"p" * 32


def key_of(age_ms: int, sign_from_ms: int = 0) -> SigningKey:
    return SigningKey(key_id=f"k{age_ms}", private_key=bytes(32), create_ms=age_ms, sign_from_ms=sign_from_ms)


def test_signed_bytes_are_what_the_contract_says() -> None:
    nonce = bytes(range(16, 32))

    assert proof.register_proof(b"t" * 32) == b"chappe-register/1\x00" + b"t" * 32
    assert proof.link_proof("23456789") == b"chappe-link/1\x0023456789"
    assert proof.session_proof(REF, 1_790_000_000_000, nonce) == (
        b"chappe-session/1\x00" + USER + bytes.fromhex("00000002") + bytes.fromhex("000001a0c4506c00") + nonce
    )


@pytest.mark.parametrize("offset_ms", [-60_000, 0, 60_000])
def test_proof_within_a_minute_counts(offset_ms: int) -> None:
    proof.check_time(START_MS + offset_ms, START_MS)


@pytest.mark.parametrize("offset_ms", [-60_001, 60_001, -START_MS])
def test_proof_beyond_a_minute_is_refused(offset_ms: int) -> None:
    with pytest.raises(InvalidProofError, match="60000 are allowed"):
        proof.check_time(START_MS + offset_ms, START_MS)


@pytest.mark.parametrize("public", [bytes(32), b"\1" + bytes(31), b"\xee" + b"\xff" * 31, b"\xff" * 32, b"short"])
def test_key_that_is_none_signs_nothing(public: bytes) -> None:
    with pytest.raises(InvalidProofError):
        proof.check_signature(public, bytes(64), b"signed")


def minted() -> tuple[str, bytes]:
    key = Ed25519PrivateKey.generate()
    signer = SigningKey(key_id="kid", private_key=key.private_bytes_raw(), create_ms=0, sign_from_ms=0)
    device = Device(device_id=DeviceId(2), public_key=bytes(32), platform="", generation=1, link_ms=0, is_linked=True)
    session = Session(session_id=SessionId(bytes(16)), device_id=DeviceId(2), generation=3, create_ms=0, refresh_ms=0)
    return token.mint(signer, USER, device, session, START_MS).value, public_key(key)


def verify(value: str, public: bytes) -> None:
    jwt.decode(
        value,
        jwt.PyJWK({"kty": "OKP", "crv": "Ed25519", "x": jwt.utils.base64url_encode(public).decode()}).key,
        algorithms=["EdDSA"],
        audience="chappe-edge",
        issuer="chappe",
        options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
    )


def test_token_verifies_with_its_key_only() -> None:
    value, public = minted()

    verify(value, public)
    with pytest.raises(jwt.InvalidSignatureError):
        verify(value, minted()[1])


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_forged_algorithm_is_refused_by_a_pinned_verifier(algorithm: str) -> None:
    value, public = minted()
    claims = jwt.decode(value, options={"verify_signature": False})
    secret = "" if algorithm == "none" else public.hex()
    forged = jwt.encode(claims, secret, algorithm=algorithm, headers={"kid": "kid"})

    with pytest.raises(jwt.InvalidAlgorithmError):
        verify(forged, public)


def test_new_key_signs_once_everybody_has_it() -> None:
    newer, older = key_of(2, sign_from_ms=1000), key_of(1)

    assert token.signer_of([newer, older], 999) == older
    assert token.signer_of([newer, older], 1000) == newer
    assert token.signer_of([newer], 0) == newer
    assert token.signer_of([], 0) is None


def test_codes_have_six_digits_and_differ() -> None:
    codes = {code.draw_code(RANDOM) for _ in range(200)}

    assert all(len(drawn) == 6 and drawn.isdigit() for drawn in codes)
    assert len(codes) > 190


@given(st.integers(min_value=0, max_value=8))
def test_link_code_is_read_however_it_is_typed(place: int) -> None:
    drawn = code.draw_link_code(RANDOM)
    typed = f"{drawn[:place]}-{drawn[place:]} ".lower()

    assert code.normal_link_code(typed) == drawn


@pytest.mark.parametrize("typed", ["", "2345678", "234567890", "0000OOOO", "ÄÄÄÄÄÄÄÄ", "'; DROP--"])
def test_what_is_no_link_code_is_refused(typed: str) -> None:
    with pytest.raises(LinkCodeNotFoundError):
        code.normal_link_code(typed)


def test_what_is_kept_of_codes_depends_on_the_pepper() -> None:
    assert code.code_hmac(b"a", b"v", "123456") != code.code_hmac(b"b", b"v", "123456")
    assert code.code_hmac(b"a", b"v", "123456") != code.code_hmac(b"a", b"w", "123456")
    assert code.link_code_hmac(b"a", "23456789") != code.link_code_hmac(b"b", "23456789")
    assert code.token_hash(b"t") != hashlib.sha256(b"t").digest()


@given(st.binary(max_size=40), st.integers(min_value=0, max_value=1000), st.integers(min_value=1, max_value=255))
def test_page_token_survives_no_change(after: bytes, place: int, flip: int) -> None:
    made = page.page_token(PEPPER, "contacts", USER, after)
    raw = bytearray(jwt.utils.base64url_decode(made))
    raw[place % len(raw)] ^= flip

    assert page.page_start(PEPPER, "contacts", USER, made) == after
    with pytest.raises(InvalidPageTokenError):
        page.page_start(PEPPER, "contacts", USER, jwt.utils.base64url_encode(bytes(raw)).decode())


@pytest.mark.parametrize(("asked", "size"), [(0, 200), (-1, 200), (7, 7), (1000, 1000), (10**9, 1000)])
def test_page_size_is_kept_in_bounds(asked: int, size: int) -> None:
    assert page.page_size(asked) == size


@st.composite
def cursors(draw: st.DrawFn) -> Cursor:
    xmin = draw(st.integers(min_value=1, max_value=1 << 40))
    running = sorted(draw(st.sets(st.integers(min_value=xmin, max_value=xmin + 5000), max_size=50)))
    return Cursor(draw(st.integers(0, 1 << 60)), xmin, max([xmin, *(xid + 1 for xid in running)]), tuple(running))


@given(cursors())
def test_cursor_travels_unchanged(made: Cursor) -> None:
    assert cursor.decode_cursor(cursor.encode_cursor(made)) == made


@given(st.binary(max_size=80))
def test_any_bytes_are_a_cursor_or_are_refused(raw: bytes) -> None:
    try:
        decoded = cursor.decode_cursor(raw)
    except CursorExpiredError:
        return

    assert decoded.xmin <= decoded.xmax < 1 << 64


def test_cursor_knows_what_it_has_seen() -> None:
    made = Cursor(1, 10, 20, (10, 15))

    assert [xid for xid in range(8, 22) if cursor.has_seen(made, xid)] == [8, 9, 11, 12, 13, 14, 16, 17, 18, 19]


def test_change_has_one_name_for_each_audience() -> None:
    change = Change(1, 2, ChangeKind.PROFILE, USER, 3)

    names = {cursor.change_id(epoch, change, is_for_others=others) for epoch in (1, 2) for others in (False, True)}

    assert len(names) == 4
    assert all(len(name) == 16 and name[6] >> 4 == 8 for name in names)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "20010db800010002/64".lstrip("0")),
        ("2001:0db8:0001:0002::1", "20010db800010002/64"),
        ("fe80::1%eth0", "fe80000000000000/64"),
        ("not an address", "not an address"),
        ("", ""),
    ],
)
def test_address_stands_for_everybody_behind_it(address: str, network: str) -> None:
    assert source.network_of(address) == network


def test_what_is_kept_of_addresses_and_ranges_depends_on_the_pepper_and_the_budget() -> None:
    kept = {source.holder_of(pepper, budget, "x") for pepper in (b"a", b"b") for budget in ("a", "b")}

    assert len(kept) == 4
    assert source.range_of(Phone("+447700900001")) == source.range_of(Phone("+447700909999")) == "+44770090"


def test_ids_are_uuid7_in_the_order_of_time() -> None:
    earlier, later = identifier.draw_uuid7(START_MS, RANDOM), identifier.draw_uuid7(START_MS + 1, RANDOM)

    assert earlier < later
    assert (earlier[6] >> 4, earlier[8] >> 6) == (7, 2)
