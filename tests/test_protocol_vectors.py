"""The vectors and tables of docs/protocol.md agree with its formulas, with the SDK and with the services."""

import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chappe.api.edge.v1 import client_frame_pb2, close_code_pb2, item_pb2, send_pb2, server_frame_pb2
from chappe.client.content import encode_text
from chappe.client.device import Device, DeviceKey
from chappe.client.mint import IdMint, conversation_of, mint_tag_of
from svc_edge import model as edge_model
from svc_edge.model import SignedHello
from svc_edge.service.tokens import proof_bytes
from svc_identity.model import DeviceRef
from svc_identity.protocol.proof import link_proof, register_proof, session_proof
from svc_message.model import UserId
from svc_message.protocol import TagCache, direct_conversation, milliseconds_of, mint_tag
from tests.protocol_page import Page, message_id, signed_bytes, text_content

_REFUSED = re.compile(r'Refused\(\s*"([A-Z_]+)"')
_BYTES = ("user_id", "nonce", "registration_token")


@pytest.fixture(scope="module")
def page(root: Path) -> Page:
    return Page(root / "docs" / "protocol.md")


@pytest.fixture(scope="module")
def key(page: Page) -> Ed25519PrivateKey:
    [row] = page.vectors["private_keys"]
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(row["seed"]))
    assert key.public_key().public_bytes_raw().hex() == row["public_key"]
    return key


def test_mint_tags_are_those_of_the_vectors(page: Page) -> None:
    [formula] = re.findall(r"first 6 bytes of SHA-256 of `(\"chappe-mid\"[^`]+)`", page.text)
    rows = page.vectors["mint_tags"]

    for row in rows:
        user_id, device_id, tag = bytes.fromhex(row["user_id"]), row["device_id"], bytes.fromhex(row["mint_tag"])
        fields = {"raw": signed_bytes(formula, {"user_id": user_id, "device_id": device_id})}
        assert signed_bytes("sha256(raw)", fields)[:6] == tag
        assert mint_tag_of(user_id, device_id) == tag
        assert mint_tag(user_id, device_id) == tag
        assert edge_model.mint_tag(edge_model.UserId(user_id), edge_model.DeviceId(device_id)) == tag
    assert len({row["mint_tag"] for row in rows}) == len(rows)


def test_message_ids_are_those_of_the_vectors(page: Page) -> None:
    owners = {row["mint_tag"]: (bytes.fromhex(row["user_id"]), row["device_id"]) for row in page.vectors["mint_tags"]}

    for row in page.vectors["message_ids"]:
        tag, made = bytes.fromhex(row["mint_tag"]), bytes.fromhex(row["message_id"])
        assert message_id(row["ms"], row["counter"], tag, row["random"]) == made
        assert IdMint(tag, Fixed(row["random"]), before(row)).mint(row["ms"]) == made
        assert milliseconds_of(made) == row["ms"]
        user_id, device_id = owners[row["mint_tag"]]
        assert TagCache().owns(UserId(user_id), device_id, made)
    assert [row["message_id"] for row in page.vectors["message_ids"]] == sorted(
        row["message_id"] for row in page.vectors["message_ids"]
    )


class Fixed:
    """Randomness that gives the same 14 bits for ever."""

    def __init__(self, bits: int) -> None:
        self._two = (bits << 2).to_bytes(2, "big")

    def token(self, length: int) -> bytes:
        return self._two * (length // 2)

    def uniform(self, low: float, high: float) -> float:
        return low + high


def before(row: dict[str, Any]) -> bytes:
    """Returns the id that the same device made just before; empty when it is the first of its millisecond."""
    if not row["counter"]:
        return b""
    return message_id(row["ms"], row["counter"] - 1, bytes.fromhex(row["mint_tag"]), 0)


def test_conversation_ids_are_those_of_the_vectors(page: Page) -> None:
    for row in page.vectors["conversation_ids"]:
        user, peer = bytes.fromhex(row["user"]), bytes.fromhex(row["peer"])
        assert conversation_of(user, peer).hex() == row["conversation_id"]
        assert direct_conversation(user, peer).hex() == row["conversation_id"]


def test_contents_are_those_of_the_vectors(page: Page) -> None:
    for row in page.vectors["contents"]:
        assert text_content(row["text"]).hex() == row["content"]
        assert encode_text(row["text"]).hex() == row["content"]


def test_signatures_are_those_of_the_vectors(page: Page, key: Ed25519PrivateKey) -> None:
    assert {row["message"] for row in page.vectors["signatures"]} == {message for message, _ in page.formulas}

    for row in page.vectors["signatures"]:
        [(field, formula)] = [
            (field, formula) for (message, field), formula in page.formulas.items() if message == row["message"]
        ]
        fields = {name: bytes.fromhex(value) if name in _BYTES else value for name, value in row.items()}
        assert signed_bytes(formula, fields).hex() == row["signed"]
        assert key.sign(bytes.fromhex(row["signed"])).hex() == row[field]


def test_the_sdk_signs_what_the_vectors_say_and_the_services_check_the_same(page: Page, key: Ed25519PrivateKey) -> None:
    rows = {row["message"]: row for row in page.vectors["signatures"]}
    device_key = DeviceKey(key)

    token = bytes.fromhex(rows["RegisterAccountRequest"]["registration_token"])
    assert device_key.registration_proof(token).hex() == rows["RegisterAccountRequest"]["proof"]
    assert register_proof(token).hex() == rows["RegisterAccountRequest"]["signed"]

    code = rows["LinkDeviceRequest"]["link_code"]
    assert device_key.link_proof(code).hex() == rows["LinkDeviceRequest"]["proof"]
    assert link_proof(code).hex() == rows["LinkDeviceRequest"]["signed"]

    row = rows["CreateSessionRequest"]
    user_id, nonce = bytes.fromhex(row["user_id"]), bytes.fromhex(row["nonce"])
    device = Device(user_id, row["device_id"], device_key)
    assert device.session_request(row["timestamp_ms"], nonce).signature.hex() == row["signature"]
    ref = DeviceRef(user_id, row["device_id"])  # type: ignore[arg-type]  # the directory's own types of the same bytes
    assert session_proof(ref, row["timestamp_ms"], nonce).hex() == row["signed"]

    row = rows["SignedHello"]
    nonce = bytes.fromhex(row["nonce"])
    hello = device.hello(row["access_token"], row["timestamp_ms"], nonce, row["host"])
    assert hello.signature.hex() == row["signature"]
    checked = SignedHello(row["access_token"], row["timestamp_ms"], nonce, row["host"], hello.signature)
    assert proof_bytes(checked).hex() == row["signed"]


def test_every_frame_and_action_of_the_contract_has_an_example(page: Page) -> None:
    shown = {name for step in page.steps for name in step.frame}
    shown |= {name for step in page.steps for name in step.frame.get("send", ())}

    frames = (client_frame_pb2.ClientFrame, server_frame_pb2.ServerFrame)
    wanted = {field.json_name for frame in frames for field in frame.DESCRIPTOR.oneofs_by_name["frame"].fields}
    wanted |= {field.json_name for field in send_pb2.Send.DESCRIPTOR.oneofs_by_name["action"].fields}
    assert wanted - shown == set()


def test_every_kind_of_item_has_a_row_that_says_when_two_are_the_same(page: Page) -> None:
    kinds = {field.json_name for field in item_pb2.Item.DESCRIPTOR.oneofs_by_name["event"].fields}

    assert kinds - set(re.findall(r"^\| `(\w+)` \| ", page.text, re.MULTILINE)) == set()


def test_every_refusal_of_a_send_has_a_row(page: Page, root: Path) -> None:
    made = {reason for path in (root / "svc_message").rglob("*.py") for reason in _REFUSED.findall(path.read_text())}

    assert made - set(re.findall(r"^\| `([A-Z_]+)` \| (?:yes|no) \| ", page.text, re.MULTILINE)) == set()


def test_every_close_code_has_a_row_with_its_number(page: Page) -> None:
    rows = {name: int(code) for code, name in re.findall(r"^\| (\d{4}) \| `([A-Z_]+)` \| ", page.text, re.MULTILINE)}

    codes = {name.removeprefix("CLOSE_CODE_"): number for name, number in close_code_pb2.CloseCode.items() if number}
    assert rows == codes


def test_every_block_of_json_is_played_or_holds_the_vectors(page: Page) -> None:
    assert page.unplayed == []
