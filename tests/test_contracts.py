"""The contracts keep what is promised about them, and nothing in the repository names a machine."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos import contract, document

GOLDEN = Path("tests/golden/limits.txt")
CLIENTS = {"client", "open", "internal"}
STREAM_OPENERS = {"edge", "message", "presence", "identity", "fanout"}


@pytest.fixture(scope="module")
def api() -> contract.Contract:
    return contract.load()


def rpcs(api: contract.Contract) -> Iterator[tuple[str, contract.Rpc]]:
    for service in api.services:
        for rpc in service.rpcs:
            yield f"{service.name.removeprefix(contract.PACKAGE)}/{rpc.name}", rpc


def committed_texts(root: Path) -> Iterator[tuple[str, str]]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        path = root / name
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if b"\0" not in content:
                yield name, content.decode()


def test_field_limits_change_only_on_purpose(root: Path, api: contract.Contract) -> None:
    limits = set(document.limits_list(api).splitlines())

    golden = set((root / GOLDEN).read_text().splitlines())

    assert limits - golden == set(), "new limits; if that is meant: make protos ARGS=--golden"
    assert golden - limits == set(), "lost limits; if that is meant: make protos ARGS=--golden"


def test_every_rpc_says_who_may_call_it(api: contract.Contract) -> None:
    silent = [name for name, rpc in rpcs(api) if rpc.access is None or not rpc.access.callers]

    assert silent == []


def test_calls_for_clients_with_a_session_alone_carry_the_user(api: contract.Contract) -> None:
    anonymous = [
        name
        for name, rpc in rpcs(api)
        if rpc.access and "client" in rpc.access.callers and "open" not in rpc.access.callers
        if rpc.access.principal != "user"
    ]

    assert anonymous == []


def test_streams_are_between_services_only(api: contract.Contract) -> None:
    open_streams = [
        name
        for name, rpc in rpcs(api)
        if rpc.is_request_stream or rpc.is_response_stream
        if rpc.access and not set(rpc.access.callers) <= STREAM_OPENERS
    ]

    assert open_streams == []


def test_every_unary_rpc_says_whether_it_may_be_repeated(api: contract.Contract) -> None:
    silent = [
        name
        for name, rpc in rpcs(api)
        if not rpc.is_request_stream and rpc.idempotency == "IDEMPOTENCY_UNKNOWN"
        if "Not idempotent" not in rpc.comment
    ]

    assert silent == []


def test_every_rpc_has_a_comment(api: contract.Contract) -> None:
    silent = [name for name, rpc in rpcs(api) if not rpc.comment.endswith(".")]

    assert silent == []


def test_every_text_and_list_that_a_client_sends_has_a_limit(api: contract.Contract) -> None:
    calls = {rpc.request for _, rpc in rpcs(api) if rpc.access and CLIENTS & set(rpc.access.callers)}
    requests = reachable(api, {f"{contract.PACKAGE}edge.v1.ClientFrame", *calls})

    unlimited = [
        f"{message.name.removeprefix(contract.PACKAGE)}.{field.name}"
        for message in api.messages
        if message.name in requests
        for field in message.fields
        if not is_limited(field)
    ]

    assert unlimited == []


def test_every_rpc_is_named_in_a_test(root: Path, api: contract.Contract) -> None:
    own = Path(__file__).name
    words = set()
    for path in (root / "tests").rglob("*.py"):
        if path.name != own:
            words.update(re.findall(r"\w+", path.read_text()))

    assert [name for name, rpc in rpcs(api) if rpc.name not in words] == []


def test_names_of_types_are_unique_so_that_links_in_the_reference_hold(api: contract.Contract) -> None:
    names = [name.rsplit(".", 1)[-1] for name in (*map(full_name, api.messages), *map(full_name, api.enums))]

    assert sorted(names) == sorted(set(names))


def test_locks_pin_every_package_by_hash_and_name_no_host(root: Path) -> None:
    for path in (root / "locks").glob("*.txt"):
        text = path.read_text()
        pinned = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]

        assert pinned, path
        assert all("==" in entry and "--hash=sha256:" in entry for entry in pinned), path
        assert "//" not in text, path
        assert "--index" not in text, path


def test_server_lock_agrees_with_the_development_lock(root: Path) -> None:
    pins = {
        path.name: set(re.findall(r"^[a-z0-9-]+==\S+", path.read_text(), flags=re.MULTILINE))
        for path in (root / "locks").glob("*.txt")
    }

    assert pins["server.txt"] <= pins["dev.txt"]
    assert pins["uv.txt"] <= pins["dev.txt"]


def test_no_file_holds_a_path_of_somebody_s_machine(root: Path) -> None:
    folders = "|".join(["wo" + "rk", "ro" + "ot", "ho" + "me", "Us" + "ers"])
    pattern = re.compile(rf"(?<![\w.}})*-])/(?:{folders})/\w+")

    found = [f"{name}: {match[0]}" for name, text in committed_texts(root) for match in pattern.finditer(text)]

    assert found == []


def full_name(thing: contract.MessageType | contract.EnumType) -> str:
    return thing.name


def is_limited(field: contract.Field) -> bool:
    limits = {name for name, _ in field.rules}
    if field.is_repeated and "max_items" not in limits:
        return False
    is_phone_number = ("format", "e164") in field.rules
    return field.type_name not in {"string", "bytes"} or bool(limits & {"len", "max_len"}) or is_phone_number


def reachable(api: contract.Contract, names: set[str]) -> set[str]:
    """Returns the names of messages that are part of those named, themselves included."""
    messages = {message.name: message for message in api.messages}
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in messages and name not in found:
            found.add(name)
            waiting += [field.type_name for field in messages[name].fields]
    return found
