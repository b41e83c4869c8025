"""Channels to other services, and the limits that both ends of every connection share."""

import ipaddress
import json
import re
from collections.abc import Iterable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

from chappe.runtime import contract
from chappe.runtime.pki import TlsFiles
from chappe.runtime.rotating_channel import RotatingChannel
from chappe.runtime.tls import target_options

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""The largest message that either side reads, after decompression."""
SOFT_METADATA_BYTES = 8 * 1024
HARD_METADATA_BYTES = 16 * 1024
KEEPALIVE_MS = 20_000
KEEPALIVE_TIMEOUT_MS = 5_000
MAX_CONCURRENT_STREAMS = 1024
UNARY_TIMEOUT_S = 10
"""The deadline of a unary call that is given none."""

_PORT = re.compile(r"[0-9]{1,5}")
_HIGHEST_PORT = 65_535

Options = list[tuple[str, Any]]

_RETRY_POLICY = {
    "maxAttempts": 3,
    "initialBackoff": "0.05s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_SHARED: Options = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", SOFT_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", HARD_METADATA_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
]


class AddressError(ValueError):
    """An address in a setting that is none; the message says how one is written."""


def server_options() -> Options:
    """Returns the options of every gRPC server of the mesh."""
    return [
        *_SHARED,
        ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
        # A peer that pings more often than this is cut off.
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
        # Two processes that were given one port by mistake must not share it silently.
        ("grpc.so_reuseport", 0),
    ]


def channel(
    target: str, files: TlsFiles | None, *, server_name: str, contracts: Iterable[FileDescriptor] = ()
) -> grpc.aio.Channel:
    """Opens a channel to a service.

    Args:
        target: "host:port", a headless DNS name with a port, several addresses separated by commas, or "unix:path".
        files: This process's certificate, which is followed when it changes; None for plain text, which only tests use.
        server_name: The DNS name that the server's certificate must carry, like "svc-message".
        contracts: The files whose idempotent methods are retried and whose unary methods get a deadline.

    Raises:
        TlsFilesError: The certificate files cannot be used.
        AddressError: The target cannot be dialled.
    """
    options = channel_options(contracts)
    address = grpc_target(target)
    if files is None:
        return grpc.aio.insecure_channel(address, options)
    options += target_options(server_name)
    return RotatingChannel(files, lambda credentials: grpc.aio.secure_channel(address, credentials, options))


def channel_options(contracts: Iterable[FileDescriptor] = ()) -> Options:
    """Returns the options of every channel of the mesh."""
    return [
        *_SHARED,
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        # How long one attempt to connect may take: below a handshake on a busy machine it would never succeed.
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.max_reconnect_backoff_ms", 500),
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        # The mesh is never reached through a proxy, whatever the environment says.
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 1),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.service_config", service_config(contracts)),
    ]


def service_config(contracts: Iterable[FileDescriptor]) -> str:
    """Returns gRPC's service config: round robin, deadlines, and retries of what the contract calls idempotent."""
    methods = [
        method
        for file in contracts
        for service in file.services_by_name.values()
        for method in service.methods
        if not (method.client_streaming or method.server_streaming)
    ]
    config: dict[str, Any] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [_method_config(method) for method in methods],
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
    }
    return json.dumps(config)


def grpc_target(target: str) -> str:
    """Turns addresses, as an operator writes them, into a target that gRPC balances over.

    Raises:
        AddressError: There is no port, or several targets that are not all addresses.
    """
    if target.startswith(("unix:", "dns:", "ipv4:", "ipv6:")):
        return target
    parts = [part.strip() for part in target.split(",") if part.strip()]
    hosts = [split_address(part)[0] for part in parts]
    if len(parts) == 1 and _version(hosts[0]) == 0:
        return f"dns:///{parts[0]}"
    versions = {_version(host) for host in hosts}
    if versions not in ({4}, {6}):
        raise AddressError(f"{target!r}: write one name with a port, or IP addresses of one kind separated by commas")
    return f"ipv{versions.pop()}:" + ",".join(parts)


def split_address(address: str) -> tuple[str, int]:
    """Splits "host:port", with brackets around an IPv6 host.

    Raises:
        AddressError: There is no host or no port.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    # gRPC takes of a greater port what fits into 16 bits, and listens where nobody looks.
    if not (colon and host and _PORT.fullmatch(port) and int(port) <= _HIGHEST_PORT):
        raise AddressError(f"{address!r} is no address: write host:port, like 127.0.0.1:8443")
    return host, int(port)


def _version(host: str) -> int:
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return 0


def _method_config(method: MethodDescriptor) -> dict[str, Any]:
    config: dict[str, Any] = {
        "name": [{"service": method.containing_service.full_name, "method": method.name}],
        "timeout": f"{UNARY_TIMEOUT_S}s",
    }
    if contract.read_access(method).is_idempotent:
        config["retryPolicy"] = _RETRY_POLICY
    return config
