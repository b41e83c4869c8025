"""The chat without a terminal: what it shows, and how that looks at every width."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chappe.cli.chat import layout
from chappe.cli.chat.layout import (
    View,
    all_lines,
    compose,
    header_line,
    help_line,
    last_lines,
    list_lines,
    list_width,
    message_lines,
)
from chappe.cli.chat.state import Notice, State
from chappe.cli.chat.text import cut, flat, padded, plain, width, wrap
from chappe.client import (
    ChatChanged,
    ChatSettings,
    Deleted,
    Edited,
    Expired,
    GroupChanged,
    GroupEvent,
    GroupTickChanged,
    Message,
    Offline,
    Online,
    Presence,
    PresenceChanged,
    Reacted,
    ReadOnOtherDevice,
    Role,
    SendFailed,
    Tick,
    TickChanged,
    TypingChanged,
    Typist,
)
from tests.cli.chat_sample import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    HIKERS,
    NOW,
    VIEW,
    WITH_BOB,
    WITH_DAVE,
    at,
    counts,
    message,
    open_row,
    sample,
)

PLAIN = View(NOW, is_plain=True)


@pytest.fixture
def state() -> State:
    return sample()


def shown(state: State, view: View = VIEW, columns: int = 60) -> str:
    return "\n".join(flat(line).rstrip() for line in all_lines(state, view, columns))


def header(state: State) -> str:
    return flat(header_line(state, VIEW, 80)).strip()


def titles(state: State) -> list[str]:
    return [row.title for row in state.chats]


# What is shown


def test_pinned_chats_come_first_and_then_those_with_the_newest_message(state: State) -> None:
    assert titles(state) == ["Bob", "Hikers", "Dave"]

    state.apply(message("hello?", at(16, 50), DAVE, WITH_DAVE))
    state.apply(ChatChanged(conversation_id=WITH_BOB, settings=ChatSettings(is_archived=True)))

    assert titles(state) == ["Dave", "Hikers", "Bob"]


def test_what_comes_into_another_chat_is_unread_until_it_is_opened_or_read_elsewhere(state: State) -> None:
    came = message("hello?", at(16, 50), DAVE, WITH_DAVE)

    state.apply(came)
    state.apply(came)
    state.apply(message("into the open one", at(16, 51), BOB, HIKERS))

    assert (state.rows[WITH_DAVE].unread, open_row(state).unread) == (3, 0)
    state.apply(ReadOnOtherDevice(conversation_id=WITH_DAVE, read_upto=came.message_id))
    assert state.rows[WITH_DAVE].unread == 0


def test_what_comes_behind_the_help_is_not_seen_before_the_help_is_gone(state: State) -> None:
    state.is_helping = True

    state.apply(message("did you see it?", at(16, 50), BOB, HIKERS))

    assert (state.is_seen(open_row(state)), open_row(state).unread) == (False, 1)
    state.is_helping = False
    assert state.is_seen(open_row(state))


@pytest.mark.parametrize("is_hidden", [True, False])
def test_when_the_newest_message_goes_the_one_before_stands_in_the_list(state: State, is_hidden: bool) -> None:  # noqa: FBT001 - a parameter of the test
    row = open_row(state)
    newest, before = row.entries[-1], row.entries[-2]
    assert isinstance(newest, Message)
    ids = {"message_id": newest.message_id, "conversation_id": HIKERS}

    state.apply(Deleted(**ids, by_user_id=ALICE, is_for_me=True, deleted_ms=1) if is_hidden else Expired(**ids))

    assert row.last == before
    assert titles(state) == ["Bob", "Hikers", "Dave"]


def test_a_message_from_somebody_new_makes_a_chat(state: State) -> None:
    new = replace(message("hi", at(17, 0)), conversation_id=b"3" * 16, peer_id=b"e" * 16, sender_id=b"e" * 16)

    state.apply(new)

    assert (state.rows[b"3" * 16].peer_id, state.rows[b"3" * 16].unread) == (b"e" * 16, 1)
    assert state.name(b"e" * 16) == "65656565"


def test_a_message_is_shown_once_wherever_it_comes_from(state: State) -> None:
    said = message("twice", at(16, 46), BOB, HIKERS)

    state.apply(said)
    state.add_page(open_row(state), [said], "more")
    state.apply(said)

    assert shown(state).count("twice") == 1
    assert open_row(state).older == "more"


def test_ticks_rise_and_never_fall(state: State) -> None:
    said = message("to Bob", at(16, 46), ALICE)
    state.apply(said)
    state.open_id = WITH_BOB

    for tick in (Tick.READ, Tick.DELIVERED):
        change = TickChanged(
            message_id=said.message_id, conversation_id=WITH_BOB, tick=tick, by_user_id=BOB, recorded_ms=1
        )
        state.apply(change)

    assert "to Bob  ✓✓ read" in shown(state, PLAIN)
    assert state.rows[WITH_BOB].last == replace(said, tick=Tick.READ)


@pytest.mark.parametrize(
    ("delivered", "read", "sign"),
    [(0, 0, "✓"), (1, 0, "✓ 1/2"), (2, 0, "✓✓"), (2, 1, "✓✓ read 1/2"), (2, 2, "✓✓ read")],
)
def test_ticks_of_a_group_say_how_many(state: State, delivered: int, read: int, sign: str) -> None:
    said = message("to all", at(16, 46), ALICE, HIKERS)
    state.apply(said)

    state.apply(
        GroupTickChanged(message_id=said.message_id, group_id=HIKERS, counts=counts(delivered, read), recorded_ms=1)
    )

    assert shown(state, PLAIN).splitlines()[-1].endswith(f"to all  {sign}")


def test_edits_reactions_and_what_is_taken_back_show(state: State) -> None:
    said = message("frist", at(16, 46), BOB, HIKERS)
    ids = {"message_id": said.message_id, "conversation_id": HIKERS}
    state.apply(said)

    state.apply(Edited(**ids, by_user_id=BOB, text="first", edited_ms=1))
    for user in (CAROL, ALICE, CAROL):
        state.apply(Reacted(**ids, by_user_id=user, emoji="👍", reacted_ms=1))
    assert shown(state).endswith("first (edited)  👍2")

    state.apply(Reacted(**ids, by_user_id=CAROL, emoji="", reacted_ms=2))
    assert shown(state).endswith("first (edited)  👍")

    state.apply(Deleted(**ids, by_user_id=BOB, is_for_me=False, deleted_ms=1))
    assert shown(state).endswith("this message was taken back")

    state.apply(Expired(**ids))
    assert "taken back" not in shown(state)


def test_who_is_typing_stands_in_the_header_and_in_the_list(state: State) -> None:
    assert header(state) == "Hikers  Carol typing…"
    state.apply(TypingChanged(conversation_id=WITH_BOB, peer_id=BOB, typists=(Typist(user_id=BOB, is_recording=True),)))

    state.apply(message("here I am", at(16, 47), CAROL, HIKERS))
    open_row(state).members = (BOB, CAROL, ALICE)

    assert header(state) == "Hikers  Bob, Carol, you"
    state.open_id = WITH_BOB
    assert header(state) == "Bob  recording…"


def test_the_header_says_who_is_there_and_that_nobody_can_say_without_a_connection(state: State) -> None:
    state.open_id = WITH_DAVE
    assert header(state) == "Dave  last seen yesterday at 20:30"
    state.open_id = WITH_BOB
    assert header(state) == "Bob  online"

    state.apply(Offline(edge="edge:1"))
    assert header(state) == "Bob  not connected, trying"
    state.apply(Online(edge="edge:1"))
    assert header(state) == "Bob"
    state.apply(PresenceChanged(user_id=BOB, presence=Presence.ONLINE))
    assert header(state) == "Bob  online"


def test_what_was_not_sent_is_said_at_the_bottom(state: State) -> None:
    state.apply(SendFailed(draft=1, conversation_id=HIKERS, peer_id=b"", reason="NOT_A_MEMBER", detail="you left"))

    assert flat(help_line(state, 60)).strip() == "not sent: you left"


def test_clearing_a_chat_takes_its_messages_away(state: State) -> None:
    upto = open_row(state).entries[-1]
    assert isinstance(upto, Message)

    state.apply(ChatChanged(conversation_id=HIKERS, settings=ChatSettings(cleared_upto=upto.message_id)))

    assert [entry for entry in open_row(state).entries if not isinstance(entry, Notice)] == []
    assert open_row(state).last is None


def test_what_was_accepted_after_a_chat_was_cleared_stays_whatever_its_id(state: State) -> None:
    late = replace(message("on its way for long", at(16, 40), BOB, HIKERS), accepted_ms=at(16, 46))
    state.apply(late)
    upto = message("", at(16, 45)).message_id

    state.apply(ChatChanged(conversation_id=HIKERS, settings=ChatSettings(cleared_upto=upto, cleared_ms=at(16, 45))))

    assert [entry for entry in open_row(state).entries if not isinstance(entry, Notice)] == [late]
    assert open_row(state).last == late


def happened(what: GroupEvent, version: int, user_id: bytes, name: str) -> GroupChanged:
    return GroupChanged(
        group_id=HIKERS,
        what=what,
        by_user_id=BOB,
        user_ids=(user_id,),
        name=name,
        role=Role.MEMBER,
        member_count=2,
        changed_ms=version,
        version=version,
    )


def test_a_change_that_comes_after_a_later_one_is_shown_and_undoes_nothing(state: State) -> None:
    row = open_row(state)
    row.members = (state.me, BOB, CAROL)
    state.apply(happened(GroupEvent.REMOVED, 78, CAROL, "Climbers"))

    state.apply(happened(GroupEvent.ADDED, 77, CAROL, "Hikers"))

    assert [entry.version for entry in row.entries if isinstance(entry, Notice)][:2] == [77, 78]
    assert (row.title, list(row.members)) == ("Climbers", [state.me, BOB])


def test_a_notice_is_shown_once_whether_it_is_told_or_read_and_in_its_place(state: State) -> None:
    change = happened(GroupEvent.REMOVED, 77, state.me, "Hikers")
    row = open_row(state)

    state.add_notices(row, [change])
    state.apply(change)
    state.add_notices(row, [change])

    told = [entry for entry in row.entries if isinstance(entry, Notice) and entry.version == 77]
    assert [notice.text for notice in told] == [f"{state.name(BOB)} removed you"]
    assert row.entries[0] == told[0]


# How it looks


def test_a_view_that_is_scrolled_back_stands_still(state: State) -> None:
    before = [flat(line) for line in message_lines(state, VIEW, 60, 6)]
    state.scroll_to(2)
    scrolled = [flat(line) for line in message_lines(state, VIEW, 60, 6)]

    state.apply(message("something new", at(16, 50), BOB, HIKERS))

    assert scrolled != before
    assert [flat(line) for line in message_lines(state, VIEW, 60, 6)] == scrolled
    assert "1 new, Esc shows them" in header(state)
    state.scroll_to(0)
    assert "something new" in flat(message_lines(state, VIEW, 60, 6)[-1])


@pytest.mark.parametrize("scroll", [0, 1, 7, 10_000])
@pytest.mark.parametrize("count", [1, 3, 8, 100])
def test_the_end_of_a_chat_is_the_same_however_much_of_it_is_drawn(state: State, scroll: int, count: int) -> None:
    state.scroll_to(scroll)
    whole = all_lines(state, VIEW, 60)

    end = last_lines(state, VIEW, 60, count)

    assert end == whole[-len(end) :]
    assert min(count, len(whole)) <= len(end) <= count + 4


def test_a_chat_in_which_nothing_was_said_begins_at_its_beginning(state: State) -> None:
    open_row(state).entries, open_row(state).older = [], None

    assert "the beginning of this chat" in flat(message_lines(state, VIEW, 60, 6)[-1])


def test_what_is_above_the_screen_is_not_drawn_with_every_key(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    for number in range(500):
        state.apply(message(f"number {number}", at(16, 50) + number, BOB, HIKERS))

    def noted(text: str, cells: int) -> list[str]:
        drawn.append(text)
        return wrap(text, cells)

    monkeypatch.setattr(layout, "wrap", noted)

    message_lines(state, VIEW, 60, 20)

    assert len(drawn) <= 20


def test_scrolling_back_ends_at_the_beginning(state: State) -> None:
    state.scroll_to(10_000)

    assert "the beginning of this chat" in flat(message_lines(state, VIEW, 60, 6)[0])


def test_help_fits_wherever_the_chat_does(state: State) -> None:
    state.is_helping = True

    text = " ".join(flat(line) for line in message_lines(state, VIEW, 50, 30))

    assert "…" not in text.replace("typing…", "")
    assert "/react EMOJI" in text


def test_help_keeps_its_legend_on_a_terminal_of_80_by_24(state: State) -> None:
    state.is_helping = True

    screen = "\n".join(compose(state, VIEW, 80, 24))
    chat = " ".join("".join(flat(line) for line in message_lines(state, VIEW, 80 - list_width(80) - 1, 19)).split())

    assert "/quit, Ctrl-C" in screen
    assert "pinned, muted, archived, online" in screen
    assert "1/2: one of two" in chat


@pytest.mark.parametrize("columns", [30, 44, 55, 80])
@pytest.mark.parametrize("text", ["x" * 200, "yes", f"a {'y' * 33}"])
def test_a_tick_is_never_cut(columns: int, text: str) -> None:
    state = sample()
    mine = replace(message(text, at(16, 50), ALICE, HIKERS), tick=Tick.READ, edited_ms=1, expires_ms=1)
    state.apply(mine)

    rows = [flat(line).rstrip() for line in all_lines(state, PLAIN, columns)]

    assert rows[-1].endswith("✓✓ read")


def test_an_empty_list_says_what_to_do() -> None:
    empty = State(me=ALICE)

    assert "/to NAME" in flat(list_lines(empty, VIEW, 30, 10)[0])
    assert header(empty) == "Chappe  ↓ opens the first chat, /to NAME any"
    assert all_lines(empty, VIEW, 40) == []


@pytest.mark.parametrize("columns", [30, 60, 80, 140])
def test_every_row_is_as_wide_as_the_screen(state: State, columns: int) -> None:
    for at_row in [*list_lines(state, VIEW, columns, 12), *all_lines(state, VIEW, columns)]:
        assert width(flat(at_row)) == columns


@given(st.text(max_size=300), st.integers(8, 80))
def test_any_text_is_wrapped_into_rows_that_fit_and_keeps_its_words(text: str, cells: int) -> None:
    lines = wrap(text, cells)

    assert all(width(line) <= cells for line in lines)
    assert "".join("".join(lines).split()) == "".join(plain(" ".join(text.splitlines())).split())


@given(st.text(max_size=100), st.integers(1, 60))
def test_any_text_is_cut_to_what_fits(text: str, cells: int) -> None:
    assert width(cut(plain(text), cells)) <= cells
    assert width(flat(padded([("", plain(text))], cells))) == cells


@given(st.text(max_size=200), st.integers(40, 120), st.booleans())
def test_any_message_is_drawn_at_any_width(text: str, columns: int, is_plain: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    state = sample()
    state.apply(message(text, at(16, 59), ALICE, HIKERS, tick=Tick.DELIVERED, counts=counts(2, 1)))

    lines = all_lines(state, View(NOW, is_plain), columns)

    assert {width(flat(line)) for line in lines} == {columns}


@pytest.mark.parametrize("text", ["word " * 13_000, "\n" * 65_000, "x" * 65_000])
def test_a_huge_message_is_cut_and_says_so(state: State, text: str) -> None:
    state.apply(message(text, at(16, 58), BOB, HIKERS))
    state.apply(message("and this is seen", at(16, 59), BOB, HIKERS))

    rows = shown(state).splitlines()

    assert len(rows) < 250
    assert any("it goes on" in row for row in rows)
    assert "and this is seen" in rows[-1]


def test_nothing_that_somebody_writes_moves_the_cursor(state: State) -> None:
    state.apply(message("\x1b[2Jgone\r\x07", at(16, 59), BOB, HIKERS))

    assert "\x1b" not in shown(state)
    assert "gone" in shown(state)


def test_the_page_about_the_chat_shows_what_it_draws(root: Path, state: State) -> None:
    page = (root / "docs" / "chat.md").read_text()

    for columns, rows in ((100, 22), (80, 16)):
        assert "\n".join(compose(state, VIEW, columns, rows, "me, I ha")) in page
