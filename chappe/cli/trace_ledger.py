"""Asks svc_message what it knows of a message, with the certificate of people and scripts."""

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc.aio

from chappe.api.message.v1 import trace_service_pb2, trace_service_pb2_grpc
from chappe.api.type.v1 import receipt_state_pb2
from chappe.cli.launcher.environment import TOOL, tls_files
from chappe.runtime.channels import channel
from chappe.runtime.errors import ChappeError, from_rpc_error
from chappe.runtime.tls import TlsFilesError

if TYPE_CHECKING:
    from chappe.cli.doctor_checks import Patient

_TIMEOUT_S: Final = 5.0
_KIND: Final = "TRACED_KIND_"
_STATE: Final = "RECEIPT_STATE_"


class Pointer(NamedTuple):
    """A place of the message in somebody's inbox log."""

    user: str
    position: str
    written_ms: int


class Receipt(NamedTuple):
    """How far the message has come with somebody; 0 stands for not at all."""

    user: str
    state: str
    delivered_ms: int
    read_ms: int


class Known(NamedTuple):
    """What the ledger knows of a message."""

    kind: str
    accepted_ms: int
    sender: str
    sender_device: int
    recipient: str
    recipient_count: int
    """Of a message to a group."""
    is_withheld: bool
    pointers: tuple[Pointer, ...]
    receipts: tuple[Receipt, ...]


async def ask(patient: "Patient", message_id: bytes, conversation_id: bytes) -> Known | str:
    """Returns what the ledger of a system that runs knows, or why nothing could be learnt, in words."""
    addresses = patient.state.get("grpc", {}).get("message", [])
    if not addresses:
        return f"no `chappe up` runs in {patient.data}"
    request = trace_service_pb2.GetMessageTraceRequest(message_id=message_id, conversation_id=conversation_id)
    contracts = [trace_service_pb2.DESCRIPTOR]
    try:
        async with channel(
            ",".join(addresses), tls_files(patient.pki, TOOL), server_name="svc-message", contracts=contracts
        ) as opened:
            stub: Any = trace_service_pb2_grpc.TraceServiceStub(opened)
            return _known(await stub.GetMessageTrace(request, timeout=_TIMEOUT_S))
    except grpc.aio.AioRpcError as error:
        refusal: ChappeError = from_rpc_error(error, dependency="svc_message")
        return f"it refused: {refusal.reason}: {refusal}"
    except TlsFilesError as error:
        return str(error)


def _known(answer: trace_service_pb2.GetMessageTraceResponse) -> Known:
    return Known(
        kind=trace_service_pb2.TracedKind.Name(answer.kind).removeprefix(_KIND).lower(),
        accepted_ms=answer.accepted_ms,
        sender=answer.sender_user_id.hex(),
        sender_device=answer.sender_device_id,
        recipient=answer.recipient_user_id.hex(),
        recipient_count=answer.recipient_count,
        is_withheld=answer.is_withheld,
        pointers=tuple(
            Pointer(pointer.user_id.hex(), pointer.position.hex(), int.from_bytes(pointer.position[:6], "big"))
            for pointer in answer.pointers
        ),
        receipts=tuple(
            Receipt(
                receipt.user_id.hex(),
                receipt_state_pb2.ReceiptState.Name(receipt.state).removeprefix(_STATE).lower(),
                receipt.delivered_ms,
                receipt.read_ms,
            )
            for receipt in answer.receipts
        ),
    )
