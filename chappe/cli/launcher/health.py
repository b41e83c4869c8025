"""Asks services how they are, over mutual TLS, as grpcurl or a probe would."""

from typing import Any, Final

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chappe.runtime.channels import channel
from chappe.runtime.pki import TlsFiles
from chappe.runtime.tls import TlsFilesError

_TIMEOUT_S: Final = 2.0
# The package's own stubs lack what belongs to List.
_PB2: Any = health_pb2


async def trouble(service: str, address: str, files: TlsFiles) -> str:
    """Returns what is wrong with a service, for people; empty when it serves.

    Args:
        service: Its name, without the prefix.
        address: Where it is, host:port.
        files: Whose certificate is shown.
    """
    try:
        async with channel(address, files, server_name=f"svc-{service}") as opened:
            stub: Any = health_pb2_grpc.HealthStub(opened)
            answer = await stub.Check(_PB2.HealthCheckRequest(), timeout=_TIMEOUT_S)
            if answer.status == _PB2.HealthCheckResponse.SERVING:
                return ""
            listed = await stub.List(_PB2.HealthListRequest(), timeout=_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        return f"{address} answers {error.code().name}: {error.details()}"
    except TlsFilesError as error:
        return str(error)
    failing = sorted(
        name
        for name, answer in listed.statuses.items()
        if name not in {"", "ready"} and answer.status != _PB2.HealthCheckResponse.SERVING
    )
    return f"failing: {', '.join(failing)}" if failing else "it starts or drains"
