"""The commands of people, as typed, against the real system."""

import signal
from collections.abc import Callable

import pytest

from tests.cli.conftest import Person, Running, Started, ended, living, server_of

pytestmark = pytest.mark.system

Two = tuple[Person, Person]


def test_the_system_is_two_engines_five_services_and_a_launcher(system: Running) -> None:
    assert len(living(system.pids)) == 9


def test_who_was_offline_hears_it_later_and_only_once(people: Two) -> None:
    alice, bob = people
    for text in ("one", "two"):
        assert alice.type("send", bob.phone, text).code == 0

    first = bob.type("listen", "--count", "2", "--timeout", "30").objects
    again = bob.type("listen", "--timeout", "1").objects

    assert [shown["text"] for shown in first if shown["event"] == "message"] == ["one", "two"]
    assert [shown for shown in again if shown["event"] == "message"] == []


def test_history_and_chats_show_what_was_said_and_what_is_unread(people: Two) -> None:
    alice, bob = people
    alice.type("send", bob.phone, "first")
    alice.type("send", bob.phone, "second")

    [chat] = bob.type("chats").objects
    shown = bob.type("history", alice.phone, "--limit", "1").objects

    assert (chat["peer_name"], chat["unread"], chat["last_text"]) == ("Alice", 2, "second")
    assert [message["text"] for message in shown] == ["second"]


def test_who_registers_a_number_again_is_told_what_becomes_of_its_earlier_devices(people: Two, system: Running) -> None:
    alice, _ = people
    new = Person(alice._start, alice.home, "new", f"{alice.phone}9")
    arguments = ["--server", system.ws[0], "register"]

    first = new.type(*arguments, new.phone, "--name", "New", is_json=False)
    again = new.type(*arguments, alice.phone, "--name", "Alice", "--replace", is_json=False)

    assert "unlinked" not in first.errors
    assert f"the devices on which {alice.phone} was registered before are unlinked" in again.errors


def test_contacts_may_be_named(people: Two) -> None:
    alice, bob = people
    alice.type("contacts", "add", bob.phone, "Bobby")

    sent = alice.type("send", "bobby", "by name")

    assert [contact["name"] for contact in alice.type("contacts", "list").objects] == ["Bobby"]
    assert [contact["name"] for contact in alice.type("contacts").objects] == ["Bobby"]
    assert sent.code == 0
    assert alice.type("contacts", "remove", bob.phone).code == 0
    assert alice.type("contacts", "list").objects == []


def test_a_block_leaves_one_tick_and_an_unblock_ends_it(people: Two) -> None:
    alice, bob = people
    bob.type("block", alice.phone)

    blocked = alice.type("send", bob.phone, "not for you", "--wait", "--timeout", "2")
    bob.type("unblock", alice.phone)
    alice.type("send", bob.phone, "for you")
    heard = bob.type("listen", "--count", "1", "--timeout", "30").objects

    assert blocked.code == 1
    assert "has blocked you" in blocked.errors
    assert [shown["text"] for shown in heard if shown["event"] == "message"] == ["for you"]


def test_a_setting_that_protects_nothing_yet_says_so(people: Two) -> None:
    alice, _ = people

    switched_on = alice.type("settings", "two-step-verification", "on", is_json=False)
    others = alice.type("settings", "last-seen", "nobody", is_json=False)

    assert "two-step-verification        on" in switched_on.output
    assert "protects nothing yet" in switched_on.errors
    assert "protects nothing yet" not in others.errors


def test_a_revoked_device_is_gone_from_the_sessions(people: Two) -> None:
    alice, _ = people
    [session] = alice.type("sessions").objects

    revoked = ended(alice.begin("revoke", str(session["device"])))
    told = alice.type("revoke", str(session["device"]), is_json=False)

    assert session["is_this_device"]
    assert revoked.code == 0
    assert "signs in again with its next command; with --unlink" in told.output
    assert alice.type("login").objects[0]["name"] == "Alice"


def test_an_unlinked_device_is_refused_for_good(people: Two) -> None:
    alice, _ = people
    alice.type("revoke", "1", "--unlink")

    refused = alice.type("login")

    assert refused.code == 3
    assert refused.errors.startswith("Error: ")


def test_hello_is_one_line_of_json_for_another_client(people: Two) -> None:
    alice, _ = people

    [frame] = alice.type("hello").objects

    assert frame["hello"]["protocol"] == 1
    assert frame["hello"]["signed"].keys() == {"accessToken", "timestampMs", "nonce", "host", "signature"}


def test_an_interrupted_listen_says_so_by_its_exit_code(people: Two) -> None:
    alice, bob = people
    listening = bob.begin("listen", "--timeout", "90")
    alice.type("send", bob.phone, "are you there?", "--wait")

    listening.send_signal(signal.SIGINT)

    assert ended(listening).code == 130


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["send", "+19995550199", "hi"], 1, "has no account here"),
        (["send", "nobody", "hi"], 1, "is neither a contact with an account"),
        (["block", "nobody"], 1, "is no contact with an account"),
        (["register", "+12025550101", "--name", "Again"], 1, "--replace on the command line"),
        (["link", "AAAAAAAA", "--replace"], 3, "LINK_CODE_NOT_FOUND"),
        (["--server", "nonsense", "login"], 1, "is not the address of an edge"),
        (["--server", "ws://127.0.0.1:9", "link", "AAAAAAAA", "--replace"], 4, "`chappe doctor`"),
        (["--profile", "a/b", "login"], 2, "use letters, digits"),
    ],
)
def test_failures_are_one_readable_line(people: Two, arguments: list[str], code: int, message: str) -> None:
    alice, _ = people
    if arguments[0] == "link":
        arguments = ["--server", server_of(alice), *arguments]

    failed = alice.type(*arguments)

    assert (failed.code, failed.output) == (code, "")
    assert message in failed.errors


def test_a_profile_that_was_never_made_says_what_to_do(chappe: Callable[..., Started]) -> None:
    failed = ended(chappe("--profile", "nobody", "chats"))

    assert failed.code == 1
    assert "register or link it first" in failed.errors
