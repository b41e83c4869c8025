"""Tells what became of a message as one story in the order of time, with what could not be found and why."""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from chappe.cli.trace_ledger import Known
from chappe.cli.trace_sink import Hop


class Line(NamedTuple):
    """One line of the story."""

    event: str
    """message, hop, ledger or missing."""
    at_ms: float | None
    """Since the edge had the send, or since the sender minted the id; None for what has no moment."""
    source: str
    """Who says so."""
    text: str
    fields: dict[str, Any]
    """The same, for programs."""


class Evidence(NamedTuple):
    """What was found out about a message."""

    message_id: str
    hops: list[Hop]
    known: Known | str
    """What the ledger said, or why it said nothing."""
    oldest_ns: int
    """Before this moment the sink may have lost spans; 0 when it has none at all."""

    @property
    def minted_ms(self) -> int:
        """When the sender's device made the id, by its clock."""
        return int(self.message_id[:12], 16)

    @property
    def start_ns(self) -> int:
        """From when the story counts."""
        return min((hop.start_ns for hop in self.hops), default=self.minted_ms * 1_000_000)

    def after_ms(self, wall_ms: int) -> float:
        """Returns how long after the start a moment was."""
        return wall_ms - self.start_ns / 1e6

    def of(self, name: str) -> list[Hop]:
        """Returns the hops of a name."""
        return [hop for hop in self.hops if hop.name == name]


def tell(evidence: Evidence) -> list[Line]:
    """Returns the whole story: what it is about, what happened in order, what is missing."""
    happened = [*_hops(evidence), *_ledger(evidence)]
    happened.sort(key=lambda line: line.at_ms or 0.0)
    return [_title(evidence), *happened, *_missing(evidence)]


def _title(evidence: Evidence) -> Line:
    minted = dt.datetime.fromtimestamp(evidence.minted_ms / 1000).astimezone()
    moment = f"{minted:%Y-%m-%d %H:%M:%S}.{minted.microsecond // 1000:03}"
    since = "an edge had it" if evidence.hops else "its sender made it"
    fields = {"id": evidence.message_id, "minted_ms": evidence.minted_ms, "start_ns": evidence.start_ns}
    text = f"{evidence.message_id}, made at {moment} by the sender's clock; times count since {since}"
    return Line("message", None, "message", text, fields)


def _hops(evidence: Evidence) -> Iterator[Line]:
    for hop in evidence.hops:
        fields = {"hop": hop.name, "peer": hop.peer, "trace": hop.trace, "took_ms": round(hop.took_ms, 3), **hop.said}
        if hop.name == "edge.send":
            yield Line("hop", (hop.start_ns - evidence.start_ns) / 1e6, hop.peer, "has the send", fields)
        yield Line("hop", (hop.end_ns - evidence.start_ns) / 1e6, hop.peer, _words(hop), fields)


def _words(hop: Hop) -> str:
    words = _WORDS.get(hop.name)
    return f"{hop.name}, {hop.took_ms:.1f} ms" if words is None else words(hop)


def _accepted(hop: Hop) -> str:
    refusal = f", {hop.said['reason']}" if "reason" in hop.said else ""
    again = ", as it had been before" if hop.said.get("is_duplicate") else ""
    return f"has {hop.said.get('verdict', 'decided')} it{refusal}{again}{_shares(hop)}"


def _carried(hop: Hop) -> str:
    said = hop.said
    if "reason" in said:
        return f"drops {_what(hop)}: {said['reason']}"
    own = f" and {_count(said['own_deliveries'], 'own device')}" if said.get("own_deliveries") else ""
    again = ", a second time" if said.get("attempt", 1) > 1 else ""
    return f"carries {_what(hop)} to {_count(said.get('deliveries', 0), 'device')}{own}{again}{_shares(hop)}"


def _delivered(hop: Hop) -> str:
    own = ", another one of the sender" if hop.said.get("is_own") else ""
    where = f"the socket of device {hop.said.get('device_id')}{own}"
    return f"writes {_what(hop)} to {where}, {hop.took_ms:.1f} ms after the push"


def _received(hop: Hop) -> str:
    return f"hears that device {hop.said.get('device_id')} has stored it, {hop.took_ms:.1f} ms later"


_WORDS: Final[Mapping[str, Callable[[Hop], str]]] = {
    "edge.send": lambda hop: f"answers the sender: {hop.said.get('verdict', 'nothing')}",
    "ledger.accept": _accepted,
    "fanout.carry": _carried,
    "edge.deliver": _delivered,
    "edge.receipt": _received,
    "ledger.expand": lambda hop: f"has put it into the inboxes of {_count(hop.said.get('users', 0), 'user')}",
    "ledger.receipt": lambda hop: f"has recorded the receipt{_shares(hop)}",
}


def _what(hop: Hop) -> str:
    item = hop.said.get("item")
    return "it" if item == "message" else f"the {item}"


def _shares(hop: Hop) -> str:
    names = {"wait_ms": "waited", "store_ms": "store", "locate_ms": "located in"}
    shares = [f"{word} {hop.said[name]:.1f} ms" for name, word in names.items() if name in hop.said]
    others = hop.said.get("batch_items", 1) - 1
    company = f"with {_count(others, 'other')}" if others else "alone"
    return f" ({', '.join([f'{hop.took_ms:.1f} ms', company, *shares])})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _ledger(evidence: Evidence) -> Iterator[Line]:
    known = evidence.known
    if isinstance(known, str):
        return
    if known.kind == "void":
        yield Line("ledger", None, "ledger", "the id is void: it will never be accepted", {"kind": known.kind})
        return
    about = {name: value for name, value in known._asdict().items() if name not in {"pointers", "receipts"}}
    to = f"to {known.recipient or _count(known.recipient_count, 'member') + ' of a group'}"
    withheld = "; withheld, for the recipient had blocked the sender" if known.is_withheld else ""
    text = f"accepted, from device {known.sender_device} of {known.sender} {to}{withheld}"
    yield Line("ledger", evidence.after_ms(known.accepted_ms), "ledger", text, about)
    for pointer in known.pointers:
        text = f"in the inbox of {pointer.user} at {pointer.position}"
        yield Line("ledger", evidence.after_ms(pointer.written_ms), "ledger", text, pointer._asdict())
    for receipt in known.receipts:
        moments = (("delivered", "delivered to", receipt.delivered_ms), ("read", "read by", receipt.read_ms))
        for state, words, wall_ms in moments:
            if wall_ms:
                fields = {"user": receipt.user, "state": state, f"{state}_ms": wall_ms}
                yield Line("ledger", evidence.after_ms(wall_ms), "ledger", f"{words} {receipt.user}", fields)


def _missing(evidence: Evidence) -> Iterator[Line]:
    if isinstance(evidence.known, str):
        yield _gap("what the ledger knows", evidence.known)
    if not evidence.hops:
        yield _gap("every hop", _why_nothing(evidence))
        return
    accepts = evidence.of("ledger.accept")
    if not evidence.of("edge.send"):
        yield _gap("the way from the sender", f"no edge told of it{_rotated(evidence)}")
    if not accepts:
        why = "svc_message told of none: it did not answer, or stopped"
        yield _gap("the ledger's decision", why + _rotated(evidence))
    elif any(hop.said.get("verdict") == "stored" for hop in accepts):
        yield from _missing_delivery(evidence)


def _missing_delivery(evidence: Evidence) -> Iterator[Line]:
    known = None if isinstance(evidence.known, str) else evidence.known
    has_it = known is not None and any(receipt.delivered_ms for receipt in known.receipts)
    log = "the recipient has it from its log, whose reading is not traced" if has_it else "its log will bring it"
    carried = [hop for hop in evidence.of("fanout.carry") if hop.said.get("item") == "message"]
    delivered = [hop for hop in evidence.of("edge.deliver") if hop.said.get("item") == "message"]
    if known is not None and known.is_withheld:
        yield _gap("the way to the recipient", "the message is withheld")
    elif not carried:
        yield _gap("the way to the recipient", f"no svc_fanout carried it: the hint was lost, or not needed; {log}")
    elif not any(hop.said.get("deliveries") for hop in carried):
        yield _gap("a push to the recipient", f"no device of it was online; {log}")
    elif all(hop.said.get("is_own") for hop in delivered):
        yield _gap("the way to the recipient's socket", f"its session was gone, or behind; {log}")
    elif not evidence.of("edge.receipt"):
        yield _gap("a receipt", "no device has said that it stored what was pushed")
    elif not evidence.of("ledger.receipt"):
        yield _gap("the ledger's record of the receipt", "svc_message has not told of it yet, or stopped")


def _why_nothing(evidence: Evidence) -> str:
    if not evidence.oldest_ns:
        return "there are no files of spans: is this the data folder of `chappe up`, and does it trace?"
    if evidence.minted_ms * 1_000_000 < evidence.oldest_ns:
        return "the sink keeps a bounded number of spans, and begins after this message"
    return "it was not sampled, see CHAPPE_EDGE_TRACE_SAMPLE_RATIO, or never reached an edge of this system"


def _rotated(evidence: Evidence) -> str:
    return "; the sink may have lost it" if evidence.start_ns <= evidence.oldest_ns else ""


def _gap(what: str, why: str) -> Line:
    return Line("missing", None, "missing", f"{what}: {why}", {"what": what, "why": why})
