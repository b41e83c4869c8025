"""`chappe trace`: tells what became of one message on a development system."""

from pathlib import Path
from typing import Any

import click

from chappe.cli.terminal import Terminal, json_option, pass_terminal

_ID_BYTES = 16
_LATEST_MS = 253_370_764_800_000
"""The beginning of the year 9999: a calendar ends with it, and the time of an id does not."""
_COLORS = {"ledger": "green", "missing": "yellow"}


class HexId(click.ParamType[bytes]):
    """An id of 16 bytes, as 32 hexadecimal digits; dashes are passed over."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        """Returns the bytes of an id."""
        if isinstance(value, bytes):
            return value
        try:
            found = bytes.fromhex(str(value).replace("-", ""))
        except ValueError:
            found = b""
        if len(found) != _ID_BYTES:
            self.fail(f"{value!r}: write 32 hexadecimal digits, as `chappe --json send` prints them", param, ctx)
        return found


class MessageId(HexId):
    """The id of a message: a UUIDv7 whose time is one that a calendar has."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        """Returns the bytes of an id."""
        found = super().convert(value, param, ctx)
        is_uuid7 = found[6] >> 4 == 7 and found[8] >> 6 == 2  # noqa: PLR2004 - version and variant in RFC 9562
        if not is_uuid7 or int.from_bytes(found[:6], "big") > _LATEST_MS:
            self.fail(
                f"{value!r} is no message's id, which is a UUIDv7; `chappe --json history` prints ids", param, ctx
            )
        return found


@click.command()
@click.argument("message_id", type=MessageId(), metavar="MESSAGE_ID")
@click.option("--chat", type=HexId(), metavar="ID", help="Its conversation, for the ledger; spans know it, too.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="The data folder of `chappe up`; without it one that runs is looked for here, above, and in CHAPPE_HOME.",
)
@json_option
@pass_terminal
def trace(terminal: Terminal, /, *, message_id: bytes, chat: bytes | None, data: Path | None) -> None:
    """Tell what became of a message: every hop with its time since the send, and what the ledger knows.

    MESSAGE_ID is what `chappe --json send` and `history` print as "id". Works beside `chappe up`, which traces every
    message unless CHAPPE_EDGE_TRACE_SAMPLE_RATIO says otherwise. What could not be found is told with the reason.
    Exit code 1 when nothing is known of the message at all.
    """
    import asyncio
    import sys

    from chappe.cli.data_folder import find_system
    from chappe.cli.launcher.environment import TRACES
    from chappe.cli.trace_ledger import Known, ask
    from chappe.cli.trace_names import known_names, with_names
    from chappe.cli.trace_sink import Sink
    from chappe.cli.trace_story import Evidence, tell

    patient, looked_in = find_system(data, terminal.home)
    sink = Sink(patient.data / TRACES)
    hops = sink.hops(message_id.hex())
    said = next((hop.said["conversation_id"] for hop in hops if "conversation_id" in hop.said), "")
    conversation_id = chat or bytes.fromhex(said)
    known: Known | str
    if not patient.state:
        known = f"no `chappe up` runs in {looked_in}; --data names its folder"
    elif conversation_id:
        known = asyncio.run(ask(patient, message_id, conversation_id))
    else:
        known = 'it finds a message by its chat only: name it with --chat, `chappe --json history` prints it as "chat"'
    evidence = Evidence(message_id.hex(), hops, known, sink.oldest_ns())

    names = known_names(terminal.folder)
    for line in tell(evidence):
        at = "" if line.at_ms is None else f"{line.at_ms:+.1f} ms"
        source = click.style(f"{line.source:<12}", fg=_COLORS.get(line.event))
        text = f"{at:>12}  {source} {with_names(line.text, names)}"
        at_ms = None if line.at_ms is None else round(line.at_ms, 3)
        terminal.show(text, event=line.event, at_ms=at_ms, text=line.text, **line.fields)
    sys.exit(0 if hops or not isinstance(known, str) else 1)
