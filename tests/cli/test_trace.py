"""`chappe trace`: the story of a message, what it says of what is missing, and the real thing."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from chappe.cli.data_folder import find_system
from chappe.cli.main import main
from chappe.cli.trace_ledger import Known, Pointer, Receipt
from chappe.cli.trace_names import known_names, with_names
from chappe.cli.trace_sink import Hop, Sink
from chappe.cli.trace_story import Evidence, Line, tell
from chappe.client.device import DeviceKey
from chappe.client.profiles import About, Profile
from chappe.client.store import Person as KnownPerson
from chappe.client.store_sqlite import SqliteStore
from tests.cli.conftest import Person, Running, ended, until

MINTED_MS = 1_795_878_755_203
ID = f"{MINTED_MS:012x}70008ff7b0dce092d867"
START_NS = MINTED_MS * 1_000_000 + 5_000_000
ALICE, BOB, CHAT = "a" * 32, "b" * 32, "c" * 32

KNOWN = Known(
    kind="message",
    accepted_ms=MINTED_MS + 7,
    sender=ALICE,
    sender_device=1,
    recipient=BOB,
    recipient_count=0,
    is_withheld=False,
    pointers=(Pointer(ALICE, "9" * 32, MINTED_MS + 7), Pointer(BOB, "9" * 32, MINTED_MS + 7)),
    receipts=(Receipt(BOB, "read", MINTED_MS + 15, MINTED_MS + 90),),
)


def hop(name: str, peer: str, start_ms: float, took_ms: float, **said: Any) -> Hop:
    start_ns = START_NS + int(start_ms * 1e6)
    return Hop(name, peer, "7" * 32, start_ns, start_ns + int(took_ms * 1e6), {"message_id": ID, **said})


def way() -> list[Hop]:
    """Returns the hops of a message that came through."""
    return [
        hop("ledger.accept", "message-0", 1, 3, verdict="stored", batch_items=3, wait_ms=0.5, store_ms=2.0),
        hop("edge.send", "edge-0", 0, 5, verdict="stored"),
        hop("fanout.carry", "fanout-0", 4, 2, item="message", deliveries=1, own_deliveries=2, locate_ms=1.0),
        hop("edge.deliver", "edge-1", 7, 1, item="message", device_id=4, is_own=False),
        hop("edge.receipt", "edge-1", 8, 2, device_id=4),
        hop("ledger.receipt", "message-0", 11, 1, batch_items=1),
    ]


def story(hops: list[Hop], known: Known | str = KNOWN, oldest_ns: int = 1) -> list[Line]:
    return tell(Evidence(ID, hops, known, oldest_ns))


def missing(hops: list[Hop], known: Known | str = KNOWN, oldest_ns: int = 1) -> str:
    return "\n".join(line.text for line in story(hops, known, oldest_ns) if line.event == "missing")


def without(*names: str) -> list[Hop]:
    return [one for one in way() if one.name not in names]


def test_the_story_goes_in_the_order_of_time_and_counts_from_the_send() -> None:
    title, *lines = story(way())

    assert ID in title.text
    assert [(round(line.at_ms or 0), line.source, line.text) for line in lines] == [
        (0, "edge-0", "has the send"),
        (2, "ledger", f"accepted, from device 1 of {ALICE} to {BOB}"),
        (2, "ledger", f"in the inbox of {ALICE} at {'9' * 32}"),
        (2, "ledger", f"in the inbox of {BOB} at {'9' * 32}"),
        (4, "message-0", "has stored it (3.0 ms, with 2 others, waited 0.5 ms, store 2.0 ms)"),
        (5, "edge-0", "answers the sender: stored"),
        (6, "fanout-0", "carries it to 1 device and 2 own devices (2.0 ms, alone, located in 1.0 ms)"),
        (8, "edge-1", "writes it to the socket of device 4, 1.0 ms after the push"),
        (10, "edge-1", "hears that device 4 has stored it, 2.0 ms later"),
        (10, "ledger", f"delivered to {BOB}"),
        (12, "message-0", "has recorded the receipt (1.0 ms, alone)"),
        (85, "ledger", f"read by {BOB}"),
    ]


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (
            hop("ledger.accept", "message-0", 0, 1, verdict="refused", reason="RECIPIENT_NOT_FOUND"),
            "has refused it, RECIPIENT_NOT_FOUND (1.0 ms, alone)",
        ),
        (
            hop("ledger.accept", "message-0", 0, 1, verdict="stored", is_duplicate=True),
            "has stored it, as it had been before (1.0 ms, alone)",
        ),
        (
            hop("fanout.carry", "fanout-0", 0, 1, item="receipt", reason="DEPENDENCY_UNAVAILABLE"),
            "drops the receipt: DEPENDENCY_UNAVAILABLE",
        ),
        (
            hop("fanout.carry", "fanout-0", 0, 1, item="message", deliveries=2, attempt=2),
            "carries it to 2 devices, a second time (1.0 ms, alone)",
        ),
        (
            hop("edge.deliver", "edge-0", 0, 1, item="receipt", device_id=1, is_own=True),
            "writes the receipt to the socket of device 1, another one of the sender, 1.0 ms after the push",
        ),
        (
            hop("ledger.expand", "message-0", 0, 1, users=3),
            "has put it into the inboxes of 3 users",
        ),
        (hop("edge.later", "edge-0", 0, 1), "edge.later, 1.0 ms"),
    ],
)
def test_every_hop_has_its_words(one: Hop, text: str) -> None:
    assert text in [line.text for line in story([one])]


NOT_READ = KNOWN._replace(receipts=())
OFFLINE = [*without("fanout.carry"), hop("fanout.carry", "fanout-0", 4, 2, item="message", deliveries=0)]
DELIVERY = ("edge.deliver", "edge.receipt", "ledger.receipt")


@pytest.mark.parametrize(
    ("hops", "known", "why"),
    [
        (way(), KNOWN, ""),
        (way(), "no `chappe up` runs here", "what the ledger knows: no `chappe up` runs here"),
        ([], KNOWN, "every hop: it was not sampled"),
        (without("edge.send"), KNOWN, "the way from the sender: no edge told of it"),
        (without("ledger.accept"), KNOWN, "the ledger's decision: svc_message told of none"),
        (without("fanout.carry"), NOT_READ, "no svc_fanout carried it: the hint was lost, or not needed; its log will"),
        (OFFLINE, NOT_READ, "no device of it was online; its log will bring it"),
        (OFFLINE, KNOWN, "no device of it was online; the recipient has it from its log, whose reading is not traced"),
        (without(*DELIVERY), KNOWN, "the way to the recipient's socket: its session was gone, or behind"),
        (without("edge.receipt"), NOT_READ, "a receipt: no device has said that it stored what was pushed"),
        (without("ledger.receipt"), KNOWN, "the ledger's record of the receipt: svc_message has not told of it yet"),
        (way(), KNOWN._replace(is_withheld=True), "the way to the recipient: the message is withheld"),
    ],
)
def test_what_is_missing_is_told_with_the_reason(hops: list[Hop], known: Known | str, why: str) -> None:
    told = missing(hops, known)

    assert told.startswith(why) if not why else why in told


def test_nothing_is_missing_of_a_message_that_was_refused() -> None:
    refused = [
        hop("edge.send", "edge-0", 0, 5, verdict="refused"),
        hop("ledger.accept", "message-0", 1, 3, verdict="refused"),
    ]

    assert missing(refused) == ""


def test_what_the_sink_may_have_lost_is_told() -> None:
    assert "there are no files of spans" in missing([], KNOWN, 0)
    assert "begins after this message" in missing([], KNOWN, START_NS + 1)
    assert "the sink may have lost it" in missing(without("edge.send"), KNOWN, START_NS + 10**9)


def test_a_message_to_a_group_is_told_with_the_number_of_its_members() -> None:
    told = story(way(), KNOWN._replace(recipient="", recipient_count=1))

    assert f"accepted, from device 1 of {ALICE} to 1 member of a group" in [line.text for line in told]


def test_a_void_id_and_a_withheld_message_are_told_as_such() -> None:
    void = story([], KNOWN._replace(kind="void"))
    withheld = story(way(), KNOWN._replace(is_withheld=True))

    assert "the id is void: it will never be accepted" in [line.text for line in void]
    assert any("withheld, for the recipient had blocked the sender" in line.text for line in withheld)


def span_of(one: Hop) -> str:
    attributes = {f"chappe.{name}": value for name, value in one.said.items()}
    span = {"name": one.name, "peer": one.peer, "trace": one.trace, "start_ns": one.start_ns, "end_ns": one.end_ns}
    return json.dumps(span | {"attributes": attributes}) + "\n"


def filled(folder: Path) -> Path:
    """Fills a sink with a message's hops, another one's, a torn line and a file that was rotated."""
    traces = folder / "traces"
    traces.mkdir()
    other = hop("edge.send", "edge-0", -50, 1)._replace(said={"message_id": "f" * 32, "conversation_id": CHAT})
    (traces / "svc_edge-0.jsonl.1").write_text(span_of(other))
    edge = [one for one in way() if one.peer == "edge-0"]
    (traces / "svc_edge-0.jsonl").write_text("".join(map(span_of, edge)) + span_of(edge[0])[:-9])
    (traces / "svc_message-0.jsonl").write_text(
        "".join(span_of(one) for one in way() if one.peer != "edge-0") + f'{{"attributes": 5, "x": "{ID}"}}\n'
    )
    return folder


def test_the_sink_finds_the_spans_of_a_message_in_all_files_and_passes_over_torn_lines(tmp_path: Path) -> None:
    sink = Sink(filled(tmp_path) / "traces")

    assert [one.name for one in sink.hops(ID)] == [one.name for one in way()]
    assert [one.peer for one in sink.hops("f" * 32)] == ["edge-0"]
    # The file of svc_message reaches back the least.
    assert sink.oldest_ns() == START_NS + 1_000_000
    assert Sink(tmp_path / "nowhere").oldest_ns() == 0


def trace(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["trace", *arguments])


def test_without_a_running_system_the_sink_tells_alone(tmp_path: Path) -> None:
    told = trace(ID, "--chat", CHAT, "--data", str(filled(tmp_path)))

    assert told.exit_code == 0
    assert "answers the sender: stored" in told.output
    assert "no `chappe up` runs in" in told.output


def test_a_message_of_which_nothing_is_known_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    told = trace(f"{ID[:-4]}0000", "--data", str(filled(tmp_path)), "--json")

    lines = [json.loads(line) for line in told.output.splitlines()]
    assert told.exit_code == 1
    assert [line["event"] for line in lines] == ["message", "missing", "missing"]
    assert "--data" in lines[1]["why"]


def test_without_a_folder_it_is_said_where_a_system_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    told = CliRunner().invoke(main, ["trace", ID], env={"CHAPPE_HOME": str(tmp_path / "home")})

    assert told.exit_code == 1
    for place in (f"{tmp_path / '.chappe'}", "of a folder above", f"{tmp_path / 'home'}", "--data"):
        assert place in told.output


def test_a_system_that_runs_is_found_from_a_folder_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".chappe").mkdir()
    state = {"pids": {"launcher": [os.getpid()]}}
    (tmp_path / ".chappe" / "up.json").write_text(json.dumps(state))
    (tmp_path / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "down")

    found = find_system(None, tmp_path / "home")
    named = find_system(tmp_path / "elsewhere", tmp_path / "home")

    assert (found.patient.data, found.patient.state) == (tmp_path / ".chappe", state)
    assert (named.patient.data, named.patient.state) == (tmp_path / "elsewhere", {})


def test_people_whom_the_profile_knows_are_called_by_their_names(tmp_path: Path) -> None:
    about = About(user_id=ALICE, device_id=1, name="Alice")
    Profile.create(tmp_path / "alice", about, DeviceKey.generate()).close()
    store = SqliteStore(tmp_path / "alice" / "store.db", bytes.fromhex(ALICE), 1)
    store.remember([KnownPerson(bytes.fromhex(BOB), "+1", "Bobby", "Bob"), KnownPerson(b"\x03" * 16, "", "", "")])
    store.close()

    names = known_names(tmp_path / "alice")

    assert with_names(f"from {ALICE} to {BOB} and {'03' * 16}", names) == (
        f"from Alice ({ALICE[:8]}) to Bobby ({BOB[:8]}) and {'03' * 16}"
    )
    assert known_names(tmp_path / "nobody") == {}


@pytest.mark.parametrize("given", ["abc", "z" * 32, f"{ID}00"])
def test_what_is_no_id_is_refused(given: str) -> None:
    told = trace(given)

    assert told.exit_code == 2
    assert "32 hexadecimal digits" in told.output


@pytest.mark.parametrize("given", ["f" * 32, "0" * 32, f"ffffffffffff7{ID[13:]}", f"{ID[:12]}4{ID[13:]}"])
def test_an_id_that_no_message_has_is_refused_in_words(given: str) -> None:
    told = trace(given)

    assert told.exit_code == 2
    assert "is no message's id" in told.output


CANARY = "canary-3141592653"


def sent(alice: Person, bob: Person, *options: str) -> dict[str, Any]:
    first: dict[str, Any] = alice.type("send", bob.phone, CANARY, *options).objects[0]
    return first


def traced(system: Running, message: dict[str, Any], *names: str) -> list[dict[str, Any]]:
    """Returns the story of a message once it has hops of so many names."""
    arguments = ("trace", message["id"], "--chat", message["chat"], "--json", "--data", str(system.data))

    def told() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in CliRunner().invoke(main, arguments).output.splitlines()]
        return lines if set(names) <= {line.get("hop") for line in lines} else []

    found: list[dict[str, Any]] = until(told)
    return found


@pytest.mark.system
def test_a_message_is_followed_from_edge_to_edge_and_back(people: tuple[Person, Person], system: Running) -> None:
    alice, bob = people
    listening = bob.begin("listen", "--read", "--count", "2", "--timeout", "90")
    # Once the first has come, Bob is online and the second is pushed.
    sent(alice, bob, "--wait=delivered")
    message = sent(alice, bob, "--wait=read")
    ended(listening)

    names = ["edge.send", "ledger.accept", "fanout.carry", "edge.deliver", "edge.receipt", "ledger.receipt"]
    lines = traced(system, message, *names)

    hops = [line for line in lines if line["event"] == "hop"]
    assert [line for line in lines if line["event"] == "missing"] == []
    assert [line["at_ms"] for line in hops] == sorted(line["at_ms"] for line in hops)
    assert len({line["trace"] for line in hops}) == 1
    peers = {line["hop"]: line["peer"] for line in hops if line.get("item", "message") == "message"}
    assert (peers["edge.send"], peers["edge.deliver"], peers["ledger.accept"]) == ("edge-0", "edge-1", "message-0")
    states = [line["state"] for line in lines if line["event"] == "ledger" and "state" in line]
    assert states == ["delivered", "read"]
    assert next(line for line in hops if line["hop"] == "ledger.accept")["store_ms"] > 0


@pytest.mark.system
def test_a_message_to_somebody_offline_says_that_nobody_was_there(
    people: tuple[Person, Person], system: Running
) -> None:
    alice, bob = people
    message = sent(alice, bob)

    lines = traced(system, message, "edge.send", "ledger.accept", "fanout.carry")

    [gap] = [line for line in lines if line["event"] == "missing"]
    assert gap["what"] == "a push to the recipient"
    assert "its log will bring it" in gap["why"]


@pytest.mark.system
def test_no_span_and_no_log_holds_content_a_phone_number_or_a_token(
    people: tuple[Person, Person], system: Running
) -> None:
    alice, bob = people
    message = sent(alice, bob)
    traced(system, message, "ledger.accept")
    secrets = [CANARY, alice.phone, bob.phone, alice.phone[1:], bob.phone[1:]]

    files = [*(system.data / "traces").iterdir(), *(system.data / "logs").glob("*.log")]
    found = {(path.name, secret) for path in files for secret in secrets if secret in path.read_text(errors="replace")}

    # The stand-in of a text message on a development system is a line in a log; nothing else may hold a number.
    assert {name for name, _ in found} <= {"svc_identity-0.log"}
    assert CANARY not in {secret for _, secret in found}
    assert not any("eyJ" in path.read_text(errors="replace") for path in files)
