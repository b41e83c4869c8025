"""What people write is shown, and does nothing to the terminal of who reads it."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from chappe.cli.act_show import delete_message, edit_message, react_to_message, reply_to_message
from chappe.cli.chat_list import show_chat
from chappe.cli.message_info import show_info
from chappe.cli.show import Screen
from chappe.cli.terminal import Terminal
from chappe.cli.written import escaped, shortened, written
from chappe.client import (
    Chat,
    Client,
    Edited,
    Event,
    Message,
    Page,
    Reacted,
    Reaction,
    Receipt,
    SendFailed,
    Tick,
    TickChanged,
)
from chappe.client.outgoing import Kind
from tests.client.model_edge import CONVERSATION, ME, PEER

EVIL = "\x1b]0;owned\x07\x1b[8m\x9b2Jhi\r\u202e\x00there\n2026-11-30 16:20:05  Bob: lend me a million"
UNFIT = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
SAID = Message(
    message_id=bytes.fromhex("01a1" + "0" * 28),
    conversation_id=CONVERSATION,
    sender_id=PEER,
    peer_id=PEER,
    text=EVIL,
    sent_ms=1_790_000_000_000,
    accepted_ms=1_790_000_000_000,
    is_mine=False,
    reply_to=bytes.fromhex("01a1" + "0" * 28),
    reactions=(Reaction(user_id=PEER, emoji=EVIL, reacted_ms=1),),
)
MINE = replace(SAID, sender_id=ME, is_mine=True, tick=Tick.SENT)
IDS = {"message_id": SAID.message_id, "conversation_id": CONVERSATION}


class Mallory:
    """A client whose chats are full of what moves cursors."""

    user_id = ME

    def __init__(self, said: Message = SAID) -> None:
        self.people = self
        self._said = said

    async def title(self, _chat: object) -> str:
        return "Mallory"

    async def name_of(self, _user_id: bytes) -> str:
        return "Mallory"

    async def names_of(self, user_ids: Any) -> dict[bytes, str]:
        return dict.fromkeys(user_ids, "Mallory")

    async def stored_history(self, _chat: object, *, limit: int) -> list[Message]:
        return [self._said][:limit]

    async def history(self, _chat: object, **_page: object) -> Page:
        return Page(messages=[self._said], next_page="")

    async def receipts(self, _message: Message) -> list[Receipt]:
        return []

    async def edit(self, message: Message, text: str, *, timeout_s: float) -> Message:
        return replace(message, text=text, edited_ms=1)

    async def reply(self, message: Message, text: str, *, timeout_s: float) -> Message:
        return replace(message, text=text)

    async def nothing(self, *_what: object, **_how: object) -> None:
        pass

    react = delete_for_everyone = delete_for_me = nothing


def client(said: Message = SAID) -> Client:
    return cast("Client", Mallory(said))


def terminal(*, is_json: bool = False) -> Terminal:
    return Terminal(home=Path("nowhere"), is_json=is_json)


def assert_is_harmless(output: str) -> None:
    assert "hi" in output
    assert not UNFIT.search(output)
    assert not re.search(r"^2026-11-30 16:20:05  Bob", output, re.MULTILINE)


@pytest.mark.parametrize(
    "event",
    [
        SAID,
        MINE,
        Edited(**IDS, by_user_id=PEER, text=EVIL, edited_ms=1),
        Reacted(**IDS, by_user_id=PEER, emoji=EVIL, reacted_ms=1),
        TickChanged(**IDS, tick=Tick.DELIVERED, by_user_id=PEER, recorded_ms=1),
    ],
    ids=lambda event: type(event).__name__,
)
async def test_nothing_that_comes_moves_the_cursor_or_looks_like_another_message(
    event: Event, capsys: pytest.CaptureFixture[str]
) -> None:
    await Screen(terminal(), client()).event(event)

    assert_is_harmless(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("kind", "words"), [("message", "not sent"), ("edit", "not edited"), ("revoke", "not deleted")]
)
async def test_what_was_refused_is_shown_with_its_chat_and_what_it_said(
    kind: Kind, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = SendFailed(
        draft=1,
        conversation_id=CONVERSATION,
        peer_id=PEER,
        reason="TOO_LATE",
        detail="an hour ago",
        kind=kind,
        text="hi",
    )

    await Screen(terminal(), client()).event(failed)

    assert capsys.readouterr().out == f"{words} in the chat with Mallory: hi  (TOO_LATE: an hour ago)\n"


async def test_programs_get_the_whole_text_on_a_line_that_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    await Screen(terminal(is_json=True), client()).event(SAID)

    [line] = capsys.readouterr().out.splitlines()
    shown = json.loads(line)
    assert not UNFIT.search(line)
    assert (shown["text"], shown["reactions"][0]["emoji"]) == (EVIL, EVIL)


async def test_nothing_that_is_listed_or_acted_on_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    chat = Chat(conversation_id=CONVERSATION, peer_id=PEER, last_message=SAID, unread_count=0, read_upto=b"")

    await show_chat(terminal(), client(), chat)
    await show_info(terminal(), client(MINE), "Mallory", None)
    await edit_message(terminal(), client(MINE), "Mallory", None, EVIL, timeout_s=1)
    await delete_message(terminal(), client(MINE), "Mallory", None, is_for_me=False, timeout_s=1)
    await react_to_message(terminal(), client(), "Mallory", None, EVIL, timeout_s=1)
    await reply_to_message(terminal(), client(), "Mallory", None, EVIL, timeout_s=1)

    assert_is_harmless(capsys.readouterr().out)


async def test_a_list_of_chats_has_a_line_for_each_however_long_the_last_message_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = replace(SAID, text="word\n" * 10_000)
    chat = Chat(conversation_id=CONVERSATION, peer_id=PEER, last_message=long, unread_count=0, read_upto=b"")

    await show_chat(terminal(), client(), chat)

    [line] = capsys.readouterr().out.splitlines()
    assert len(line) < 120


async def test_texts_of_the_past_are_not_remembered_for_ever(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(terminal(), client())

    for number in range(1200):
        await screen.message(replace(SAID, message_id=number.to_bytes(16, "big"), reply_to=b""))

    assert len(screen._texts) == 1000
    assert capsys.readouterr().out.count("Mallory") >= 1200


@pytest.mark.parametrize("text", ["one\ntwo", "tab\tstop", "شكرا \u200c\u200f", "👩\u200d🚀", "e\u0301"])
def test_what_people_really_write_stays_as_it_is(text: str) -> None:
    assert written(text).replace("\n" + " " * 21, "\n") == text
    assert json.loads(escaped(json.dumps(text, ensure_ascii=False))) == text


def test_a_text_is_shortened_to_one_line() -> None:
    assert shortened("a\nb\r\nc") == "a b c"
    assert shortened("x" * 41) == f"{'x' * 39}…"
