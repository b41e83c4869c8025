"""The door of SessionService."""

from typing import Any

from chappe.api.identity.v1 import session_service_pb2 as wire
from chappe.api.identity.v1 import session_service_pb2_grpc
from chappe.runtime.errors import InvalidFieldError
from chappe.runtime.principal import principal
from svc_identity.model import DeviceId, DeviceRef, SessionId, UserId
from svc_identity.service.session import Proof, SessionRules


class SessionRpc(session_service_pb2_grpc.SessionServiceServicer):
    """Signs devices in and out."""

    def __init__(self, rules: SessionRules) -> None:
        self._rules = rules

    async def CreateSession(self, request: wire.CreateSessionRequest, context: Any) -> wire.CreateSessionResponse:
        """Returns an access token for a device that proves to hold its key."""
        device = DeviceRef(UserId(request.user_id), DeviceId(request.device_id))
        proof = Proof(request.timestamp_ms, request.nonce, request.signature)
        session, token = await self._rules.sign_in(device, proof)
        return wire.CreateSessionResponse(
            access_token=token.value, session_id=session.session_id, expire_ms=token.expire_ms
        )

    async def ListSessions(self, request: wire.ListSessionsRequest, context: Any) -> wire.ListSessionsResponse:
        """Returns the user's sign-in sessions."""
        sessions = await self._rules.sessions(UserId(principal().user_id))
        return wire.ListSessionsResponse(
            sessions=[
                wire.Session(
                    session_id=session.session_id,
                    device_id=session.device_id,
                    create_ms=session.create_ms,
                    refresh_ms=session.refresh_ms,
                )
                for session in sessions
            ]
        )

    async def RevokeSession(self, request: wire.RevokeSessionRequest, context: Any) -> wire.RevokeSessionResponse:
        """Ends a sign-in session, or all of one device."""
        target: SessionId | DeviceId
        if request.WhichOneof("target") == "session_id" and request.session_id:
            target = SessionId(request.session_id)
        elif request.WhichOneof("target") == "device_id" and request.device_id:
            target = DeviceId(request.device_id)
        else:
            raise InvalidFieldError("target", "name what ends: session_id or device_id")
        await self._rules.revoke(UserId(principal().user_id), target)
        return wire.RevokeSessionResponse()

    async def GetSigningKeys(self, request: wire.GetSigningKeysRequest, context: Any) -> wire.GetSigningKeysResponse:
        """Returns the keys by which access tokens are verified."""
        keys = await self._rules.public_keys()
        return wire.GetSigningKeysResponse(
            keys=[wire.SigningKey(key_id=key.key_id, public_key=key.public_key) for key in keys]
        )
