"""Which message is meant: by the beginning of its id, or the newest."""

from typing import cast

import click
import pytest
from click.testing import CliRunner

from chappe.cli.finding import find_message, is_mine, is_there
from chappe.cli.main import main
from chappe.client import Client, Message, Page
from tests.client.model_edge import CONVERSATION, ME, PEER


class Chat:
    """A chat of which a page is asked for at a time."""

    def __init__(self, *messages: Message, page_size: int = 2) -> None:
        self.messages = sorted(messages, key=lambda message: message.message_id, reverse=True)
        self.page_size = page_size
        self.pages = 0

    async def history(self, _chat: str, *, limit: int, page: str) -> Page:
        assert limit >= self.page_size
        self.pages += 1
        start = int(page or 0)
        end = start + self.page_size
        return Page(messages=self.messages[start:end], next_page=str(end) if end < len(self.messages) else "")


def message(id_: str, text: str = "", *, is_mine: bool = True) -> Message:
    return Message(
        message_id=bytes.fromhex(f"{id_:0<32}"),
        conversation_id=CONVERSATION,
        sender_id=ME if is_mine else PEER,
        peer_id=PEER,
        text=text,
        sent_ms=1_790_000_000_000,
        accepted_ms=1_790_000_000_000,
        is_mine=is_mine,
    )


async def find(chat: Chat, start: str | None) -> str:
    found = await find_message(cast("Client", chat), "Bob", start, is_mine, "message of yours")
    return found.text


async def test_without_a_beginning_the_newest_is_meant() -> None:
    chat = Chat(message("01a1", "old"), message("01a2", "new"), message("01a3", "theirs", is_mine=False))

    assert await find(chat, None) == "new"


async def test_a_beginning_means_the_one_that_has_it() -> None:
    chat = Chat(message("01a1", "one"), message("01a2", "two"), message("01a3", "three"))

    assert await find(chat, "01a1") == "one"


async def test_a_beginning_that_fits_several_names_them_all_and_takes_none() -> None:
    chat = Chat(message("01a2", "dinner"), message("01a3", "a secret"), message("01b0", "later"))

    with pytest.raises(click.ClickException, match="more than one") as refused:
        await find(chat, "01a")

    told = refused.value.message
    assert all(words in told for words in ("dinner", "a secret", f"{'01a2':0<32}", f"{'01a3':0<32}"))
    assert "later" not in told


async def test_what_is_not_meant_anyhow_does_not_make_a_beginning_ambiguous() -> None:
    chat = Chat(message("01a2", "mine"), message("01a3", "theirs", is_mine=False))

    assert await find(chat, "01a") == "mine"


async def test_a_whole_id_is_looked_for_no_further_than_where_it_would_be() -> None:
    chat = Chat(*(message(f"01a{at}", f"{at}") for at in range(9)), page_size=1)

    assert await find(chat, f"{'01a7':0<32}") == "7"
    assert chat.pages == 2
    with pytest.raises(click.ClickException, match="no message of yours begins"):
        await find(chat, f"{'01a70':0<31}1")
    assert chat.pages == 4


async def test_many_that_fit_are_not_all_listed() -> None:
    chat = Chat(*(message(f"01a{at:02x}") for at in range(40)))

    with pytest.raises(click.ClickException, match="and more") as refused:
        await find_message(cast("Client", chat), "Bob", "01a", is_there, "message")

    assert len(refused.value.message.splitlines()) < 15


@pytest.mark.parametrize("start", ["", " ", "xyz", "0" * 33])
@pytest.mark.parametrize("command", ["edit", "delete", "react", "reply", "info"])
def test_what_begins_no_id_is_refused_before_anything_is_done(command: str, start: str) -> None:
    words = {"edit": ["text"], "react": [":)"], "reply": ["text"]}.get(command, [])
    how = [start] if command == "info" else ["--message", start]

    refused = CliRunner().invoke(main, [command, "Bob", *words, *how])

    assert refused.exit_code == 2
    assert "begins no id" in refused.output
