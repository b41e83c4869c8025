"""The commands about groups, as typed, against the real system; and how what happens is said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from chappe.cli.duration import seconds, spoken
from chappe.cli.sentences import sentence
from chappe.client import GroupChanged, GroupEvent, Role
from tests.cli.conftest import Person, Running, Started, ended, registered, until

Two = tuple[Person, Person]


@pytest.fixture
def hikers(people: Two) -> Two:
    """Alice owns a group with Bob."""
    alice, bob = people
    [made] = alice.type("group", "create", "Hikers", bob.phone, "--about", "up\nand down").objects
    assert (made["event"], made["members"], made["role"]) == ("created", 2, "owner")
    return people


@pytest.fixture
def carol(chappe: Callable[..., Started], system: Running, tmp_path: Path) -> Person:
    return registered(chappe, tmp_path, "carol", system.ws[0])


@pytest.mark.system
def test_a_message_to_a_group_reaches_its_members_with_their_names(hikers: Two) -> None:
    alice, bob = hikers
    listening = bob.begin("listen", "--count", "1", "--timeout", "90")

    [sent] = alice.type("send", "hikers", "up we go").objects
    heard = ended(listening).objects

    assert (sent["tick"], sent["group"]) == ("sent", heard[-1]["group"])
    assert {shown["event"] for shown in heard} <= {"group_changed", "message"}
    assert (heard[-1]["text"], heard[-1]["group_name"], heard[-1]["sender_name"]) == ("up we go", "Hikers", "Alice")


@pytest.mark.system
def test_what_was_said_in_a_group_is_in_its_history(hikers: Two) -> None:
    alice, _ = hikers
    for text in ("one", "two", "three"):
        alice.type("send", "Hikers", text)

    shown = alice.type("history", "Hikers", "--limit", "2").objects

    assert [message["event"] for message in shown] == ["message", "message"]
    assert [(message["text"], message["is_mine"]) for message in shown] == [("two", True), ("three", True)]


@pytest.mark.system
def test_who_has_a_message_and_who_read_it_is_shown_by_name(hikers: Two, carol: Person) -> None:
    alice, bob = hikers
    alice.type("group", "add", "Hikers", carol.phone)
    [sent] = alice.type("send", "Hikers", "who reads this?").objects
    _, *missing = alice.type("info", "Hikers").objects
    assert sorted((one["event"], one["name"]) for one in missing) == [("missing", "Bob"), ("missing", "Carol")]
    bob.type("listen", "--read", "--count", "1", "--timeout", "30")
    carol.type("listen", "--count", "1", "--timeout", "30")

    message, *receipts = until(lambda: read_by(alice, sent["id"][:20], 2))
    shown = alice.type("history", "Hikers").objects[-1]
    nobody = alice.type("info", "Hikers", "ffff")

    assert (message["text"], message["tick"], message["recipients"]) == ("who reads this?", "delivered", 2)
    assert [(receipt["name"], receipt["tick"]) for receipt in receipts] == [("Bob", "read"), ("Carol", "delivered")]
    assert (shown["delivered"], shown["read"], shown["recipients"]) == (2, 1, 2)
    assert "no message of yours begins with ffff" in nobody.errors


def read_by(person: Person, start: str, count: int) -> list[dict[str, Any]]:
    """Returns what `info` shows once so many have a message, and one read it."""
    shown = [one for one in person.type("info", "Hikers", start).objects if one["event"] != "missing"]
    return shown if len(shown) == count + 1 and shown[1]["tick"] == "read" else []


@pytest.mark.system
def test_groups_in_common_are_listed(hikers: Two, carol: Person) -> None:
    alice, bob = hikers
    none = carol.type("group", "list", is_json=False)
    assert (none.output, "you are in no group" in none.errors) == ("", True)
    alice.type("group", "create", "Climbers", carol.phone)

    assert [group["name"] for group in alice.type("group", "list", "--with", bob.phone).objects] == ["Hikers"]
    assert [group["name"] for group in alice.type("group", "list").objects] == ["Climbers", "Hikers"]


@pytest.mark.system
def test_settings_are_shown_changed_and_explained(people: Two) -> None:
    alice, _ = people

    before = {shown["name"]: shown["value"] for shown in alice.type("settings").objects}
    [changed] = alice.type("settings", "last-seen", "nobody").objects
    alice.type("settings", "read-receipts", "off")
    after = {shown["name"]: shown["value"] for shown in alice.type("settings").objects}
    wrong = alice.type("settings", "last-seen", "maybe")
    unknown = alice.type("settings", "shoe-size", "44")

    assert (before["last-seen"], before["read-receipts"], before["online"]) == ("contacts", "on", "like-last-seen")
    assert (changed["value"], after["last-seen"], after["read-receipts"]) == ("nobody", "nobody", "off")
    assert (wrong.code, unknown.code) == (2, 2)
    assert "it may be nobody, contacts, everyone" in wrong.errors
    assert "there are: last-seen, profile-photo" in unknown.errors


@pytest.mark.system
def test_a_bot_is_made_once_and_told_how_to_use_its_certificate(people: Two, system: Running) -> None:
    alice, _ = people
    command = ("bot", "create", "Weather Bot", "--data", str(system.data))

    [first] = alice.type(*command).objects
    [again] = alice.type(*command).objects
    refused = alice.type("bot", "create", "Evil", "--id", "svc-message", "--data", str(system.data))
    nowhere = alice.type("bot", "create", "Weather Bot", "--data", str(alice.home))

    assert first["spiffe_id"].endswith("/weather-bot")
    assert (again["user"], Path(first["cert"]).exists()) == (first["user"], True)
    assert (refused.code, nowhere.code) == (1, 1)
    assert "not svc-" in refused.errors
    assert "no `chappe up` runs in" in nowhere.errors


@pytest.mark.system
def test_members_are_added_shown_given_roles_and_removed(hikers: Two, carol: Person) -> None:
    alice, bob = hikers
    added = alice.type("group", "add", "Hikers", carol.phone).objects
    alice.type("group", "role", "hikers", "Carol", "admin")
    group, *members = bob.type("group", "info", added[0]["group"][:8]).objects
    removed = carol.type("group", "remove", "Hikers", "bob").objects

    assert group["description"] == "up\nand down"
    assert [(member["name"], member["role"]) for member in members] == [
        ("Alice", "owner"),
        ("Carol", "admin"),
        ("Bob (you)", "member"),
    ]
    assert removed[0]["members"] == 2
    assert bob.type("group", "list").objects == []


@pytest.mark.system
def test_who_does_not_want_to_be_added_is_said_and_an_invite_does_it(hikers: Two, carol: Person) -> None:
    alice, _ = hikers
    carol.type("block", alice.phone)

    _, refused = alice.type("group", "add", "Hikers", carol.phone).objects
    [invite] = alice.type("group", "invite", "Hikers", "--for", "2h", "--uses", "1").objects
    carol.type("unblock", alice.phone)
    [joined] = carol.type("group", "join", invite["code"]).objects
    alice.type("group", "invite", "Hikers", "--revoke")
    again = carol.type("group", "leave", "hikers"), carol.type("group", "join", invite["code"])

    assert (refused["event"], refused["name"], refused["reason"]) == ("refused", "Carol", "NOT_ALLOWED")
    assert (joined["name"], joined["role"], joined["members"]) == ("Hikers", "member", 3)
    assert (again[0].code, again[1].code) == (0, 3)
    assert "ask an admin of the group for a new one" in again[1].errors


@pytest.mark.system
def test_what_happened_to_a_group_is_told_later_stays_in_the_history_and_marks_the_chat(
    hikers: Two, carol: Person
) -> None:
    alice, bob = hikers
    alice.type("group", "add", "Hikers", carol.phone)
    alice.type("send", "Hikers", "welcome")
    alice.type("group", "remove", "Hikers", carol.phone)
    until(lambda: not carol.type("chats").objects[0]["is_member"])
    until(lambda: len(bob.type("history", "Hikers").objects) == 4)

    told = [one for one in bob.type("listen", "--timeout", "2").objects if one["event"] in {"group_changed", "message"}]
    again = bob.type("listen", "--timeout", "1").objects
    kept = bob.type("history", "Hikers").objects
    removed = carol.type("history", "Hikers", is_json=False).output

    order = ["created", "added", "welcome", "removed"]
    assert [one.get("what") or one["text"] for one in told] == order
    assert [one for one in again if one["event"] == "group_changed"] == []
    assert [one.get("what") or one["text"] for one in kept] == order
    assert "Alice removed you" in removed
    assert "[no member any more]" in carol.type("chats", is_json=False).output
    assert "[no member any more]" not in bob.type("chats", is_json=False).output


@pytest.mark.system
def test_a_group_is_changed_by_its_admins_only(hikers: Two) -> None:
    alice, bob = hikers

    [changed] = alice.type("group", "update", "Hikers", "--name", "Climbers", "--timer", "24h").objects
    refused = bob.type("group", "update", "Climbers", "--announcements")
    nothing = alice.type("group", "update", "Climbers")

    assert (changed["name"], changed["expiry_s"]) == ("Climbers", 86_400)
    assert (refused.code, nothing.code) == (3, 2)
    assert "ROLE_REQUIRED" in refused.errors


@pytest.mark.system
def test_an_owner_who_leaves_hands_over(hikers: Two) -> None:
    alice, bob = hikers

    left = alice.type("group", "leave", "Hikers")
    [group] = bob.type("group", "list").objects
    again = alice.type("send", "Hikers", "am I here?")

    assert left.code == 0
    assert (group["role"], group["members"]) == ("owner", 1)
    assert again.code == 3


@pytest.mark.system
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["group", "info", "Nowhere"], 1, "'Nowhere' is none of your groups: Hikers"),
        (["group", "remove", "Hikers", "Zoe"], 1, "'Zoe' is none of the members: Alice, Bob"),
        (["group", "role", "Hikers", "Bob", "king"], 2, "'king' is not one of"),
        (["group", "invite", "Hikers", "--for", "soon"], 2, "'soon' is no time; type for example 30m"),
        (["send", "Nowhere", "hi"], 1, "nor a group of yours (Hikers)"),
    ],
)
def test_mistakes_are_answered_with_what_there_is(hikers: Two, arguments: list[str], code: int, message: str) -> None:
    alice, _ = hikers

    failed = alice.type(*arguments)

    assert (failed.code, failed.output) == (code, "")
    assert message in failed.errors


@pytest.mark.parametrize(
    ("what", "users", "role", "said"),
    [
        (GroupEvent.CREATED, "bcd", Role.MEMBER, "Alice made the group Hikers with Bob, you and Dave"),
        (GroupEvent.CREATED, "", Role.MEMBER, "Alice made the group Hikers"),
        (GroupEvent.ADDED, "bcdef", Role.MEMBER, "Alice added Bob, you, Dave and 2 more"),
        (GroupEvent.JOINED, "b", Role.MEMBER, "Bob joined by an invite"),
        (GroupEvent.REMOVED, "c", Role.MEMBER, "Alice removed you"),
        (GroupEvent.LEFT, "b", Role.MEMBER, "Bob left"),
        (GroupEvent.ROLE, "b", Role.OWNER, "Alice made Bob the owner"),
        (GroupEvent.UPDATED, "", Role.MEMBER, "Alice changed the group Hikers"),
        (GroupEvent.CHANGED, "", Role.MEMBER, "the group Hikers changed"),
    ],
)
def test_what_happens_to_a_group_is_a_sentence(what: GroupEvent, users: str, role: Role, said: str) -> None:
    change = GroupChanged(
        group_id=b"g",
        what=what,
        by_user_id=b"a",
        user_ids=tuple(user.encode() for user in users),
        name="Hikers",
        role=role,
        member_count=3,
        changed_ms=0,
        version=2,
    )

    assert sentence(change, {b"a": "Alice", b"b": "Bob", b"c": "you", b"d": "Dave"}) == said


@pytest.mark.parametrize(("text", "time_s"), [("30s", 30), ("10m", 600), ("24h", 86_400), ("2w", 1_209_600)])
def test_times_are_typed_and_said_in_their_greatest_unit(text: str, time_s: int) -> None:
    assert seconds(text) == time_s
    assert seconds(spoken(time_s)) == time_s
    assert (spoken(86_400), spoken(0), seconds("off")) == ("1d", "off", 0)


def test_what_is_no_time_is_said_with_an_example() -> None:
    with pytest.raises(click.BadParameter, match="30m, 24h, 7d, or off"):
        seconds("tomorrow")
