"""The door of RegistrationService."""

from typing import Any

from chappe.api.identity.v1 import registration_service_pb2 as wire
from chappe.api.identity.v1 import registration_service_pb2_grpc
from chappe.runtime.principal import client_address
from svc_identity.model import Phone
from svc_identity.service.registration import Newcomer, RegistrationRules


class RegistrationRpc(registration_service_pb2_grpc.RegistrationServiceServicer):
    """Turns a phone number into a user and its first device."""

    def __init__(self, rules: RegistrationRules, *, shows_codes: bool) -> None:
        self._rules = rules
        self._shows_codes = shows_codes

    async def StartVerification(
        self, request: wire.StartVerificationRequest, context: Any
    ) -> wire.StartVerificationResponse:
        """Sends a one-time code."""
        address = client_address(context.invocation_metadata())
        started = await self._rules.start(Phone(request.phone_number), address, shows_code=self._shows_codes)
        return wire.StartVerificationResponse(
            verification_id=started.verification_id,
            resend_after_ms=started.resend_after_ms,
            development_code=started.development_code,
        )

    async def CheckVerification(
        self, request: wire.CheckVerificationRequest, context: Any
    ) -> wire.CheckVerificationResponse:
        """Exchanges the right code for a registration token."""
        token = await self._rules.check(request.verification_id, request.code)
        return wire.CheckVerificationResponse(registration_token=token)

    async def RegisterAccount(self, request: wire.RegisterAccountRequest, context: Any) -> wire.RegisterAccountResponse:
        """Makes the user of a verified number and its first device."""
        newcomer = Newcomer(
            public_key=request.device_public_key,
            profile_name=request.profile_name,
            platform=request.platform,
        )
        device = await self._rules.register(request.registration_token, newcomer, request.proof)
        return wire.RegisterAccountResponse(user_id=device.user_id, device_id=device.device_id)
