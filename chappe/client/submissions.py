"""The changes that the processes of a profile have handed over: each is sent once, and its process gets the answer."""

import asyncio
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple

from chappe.client.answers import Answers
from chappe.client.changes import Sent, Settled
from chappe.client.errors import ChappeClientError, RefusedError
from chappe.client.link import Stored, Submission
from chappe.client.outgoing import Outgoing
from chappe.client.people import InStore


class Waiting(NamedTuple):
    """Who waits for the answer to a change."""

    answer: asyncio.Future[Stored]
    seat: Hashable


class Settlement(NamedTuple):
    """To whom an answer went."""

    seat: Hashable | None
    """The process that handed the change over last; None when it has ended."""
    is_answered: bool
    """It still waited."""


class Submissions:
    """Knows what waits for an answer, and for whom."""

    def __init__(self, answers: Answers, in_store: InStore) -> None:
        self._answers = answers
        self._in_store = in_store
        self._pending: dict[bytes, Outgoing] = {}
        self._waiting: set[asyncio.Future[Stored]] = set()

    def restore(self, outgoing: Iterable[Outgoing]) -> None:
        """Takes what was handed over to a process that has ended, and was not answered."""
        self._pending |= {each.token: each for each in outgoing if each.token}

    async def submit(self, submission: Submission, seat: Hashable, send: Callable[[Outgoing], None]) -> Stored:
        """Sends a change, unless it was handed over before; returns once it is durable on the server.

        Raises:
            RefusedError: It was refused for good.
        """
        token = submission.token
        outgoing = self._pending.get(token)
        if outgoing is None and submission.is_retry:
            answer: Stored | RefusedError | None = await self._in_store(self._answers.find, token)
            if isinstance(answer, RefusedError):
                raise answer
            if answer is not None:
                return answer
        is_new = outgoing is None
        if outgoing is None:
            where = submission.destination
            outgoing = Outgoing(submission.kind, where.peer_id, where.conversation_id, submission.action)
            outgoing.token = token
            self._pending[token] = outgoing
        waiting = Waiting(asyncio.get_running_loop().create_future(), seat)
        outgoing.tag = waiting
        self._waiting.add(waiting.answer)
        if is_new:
            send(outgoing)
        try:
            return await waiting.answer
        finally:
            self._waiting.discard(waiting.answer)

    def settle(self, settled: Settled) -> Settlement:
        """Answers whoever waits for a change."""
        outgoing = settled.outgoing
        self._pending.pop(outgoing.token, None)
        waiting = outgoing.tag
        if not isinstance(waiting, Waiting):
            return Settlement(None, is_answered=False)
        if waiting.answer.done():
            return Settlement(waiting.seat, is_answered=False)
        if isinstance(settled, Sent):
            waiting.answer.set_result(Stored(outgoing.message_id, settled.accepted_ms))
        else:
            waiting.answer.set_exception(RefusedError(settled.reason, settled.detail))
        return Settlement(waiting.seat, is_answered=True)

    def end(self, error: ChappeClientError) -> None:
        """Lets nobody wait any longer."""
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(error)
