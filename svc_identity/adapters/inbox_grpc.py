"""Inboxes as svc_message keeps them."""

from collections.abc import Sequence

import grpc.aio

from chappe.api.edge.v1 import item_pb2
from chappe.api.message.v1 import message_service_pb2, message_service_pb2_grpc
from chappe.runtime.errors import from_rpc_error
from svc_identity.model import ChangeKind
from svc_identity.model.group import GroupChange
from svc_identity.ports import InboxEvent

TIMEOUT_S = 10.0

_ACCOUNT_CHANGES = {
    ChangeKind.PROFILE: item_pb2.ACCOUNT_CHANGE_PROFILE,
    ChangeKind.CONTACTS: item_pb2.ACCOUNT_CHANGE_CONTACTS,
    ChangeKind.BLOCKS: item_pb2.ACCOUNT_CHANGE_BLOCKS,
    ChangeKind.DEVICES: item_pb2.ACCOUNT_CHANGE_DEVICES,
    ChangeKind.SETTINGS: item_pb2.ACCOUNT_CHANGE_SETTINGS,
}


class GrpcInbox:
    """Appends events through MessageService."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._messages = message_service_pb2_grpc.MessageServiceStub(channel)

    async def append(self, events: Sequence[InboxEvent]) -> None:
        """Returns when the events are durable."""
        request = message_service_pb2.AppendEventsRequest(events=[_to_wire(event) for event in events])
        try:
            await self._messages.AppendEvents(request, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, dependency="svc_message") from error


def _to_wire(event: InboxEvent) -> message_service_pb2.InboxEvent:
    item = item_pb2.Item()
    if event.group is not None:
        item.group_change.CopyFrom(_group_change(event.group))
    elif event.is_for_others:
        item.profile.user_id = event.about
        item.profile.version = event.version
    else:
        item.account.change = _ACCOUNT_CHANGES.get(event.kind, item_pb2.ACCOUNT_CHANGE_UNSPECIFIED)
        item.account.version = event.version
    return message_service_pb2.InboxEvent(change_id=event.change_id, user_ids=event.recipients, item=item)


def _group_change(change: GroupChange) -> item_pb2.GroupChangeEvent:
    return item_pb2.GroupChangeEvent(
        group_id=change.group_id,
        version=change.version,
        change=item_pb2.GroupChange.ValueType(change.kind),
        actor_user_id=change.actor_id,
        user_ids=change.user_ids,
        group_name=change.group_name,
        role=item_pb2.GroupRole.ValueType(change.role),
        changed_ms=change.change_ms,
        member_count=change.member_count,
    )
