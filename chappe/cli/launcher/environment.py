"""What each service is told by environment variables: the only thing that the launcher knows of a service."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from chappe.cli.launcher.plan import SERVICES, Plan, Ports
from chappe.runtime.pki import TRUST_DOMAIN, DevelopmentCa, TlsFiles, spiffe_id
from chappe.runtime.tls import HANDSHAKE_ENVIRONMENT

TOOL: Final = "tool"
"""The certificate of people and scripts: grpcurl, `chappe doctor`, the launcher itself."""
TRACES: Final = "traces"
"""The folder of the files of spans, in the data folder."""
CERTIFICATES: Final = (*(f"svc-{service}" for service in SERVICES), TOOL)


class Stores(NamedTuple):
    """Where the engines are reached."""

    ledger: Mapping[str, str]
    """What svc_message is told of its store, by the names of its settings."""
    identity_dsn: str
    redis_url: str


def issue_certificates(folder: Path) -> None:
    """Writes a new certificate and key for everybody; a running service follows them by itself."""
    authority = DevelopmentCa.open(folder)
    for name in CERTIFICATES:
        authority.issue(name, spiffe_id(TRUST_DOMAIN, name), dns_names=(name, "localhost"))


def tls_files(folder: Path, name: str) -> TlsFiles:
    """Returns where the certificate of a name is."""
    return TlsFiles(cert=folder / f"{name}.crt", key=folder / f"{name}.key", ca=folder / "ca.crt")


def make_secrets(folder: Path) -> None:
    """Writes the secrets that are not there yet, for this user only."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    pepper = folder / "pepper"
    if not pepper.exists():
        draft = folder / ".pepper"
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        draft.rename(pepper)


class Environment:
    """Writes the environment of every process of one system."""

    def __init__(self, plan: Plan, ports: Ports, stores: Stores, checkout: Path | None) -> None:
        """Prepares.

        Args:
            plan: What is started.
            ports: Where.
            stores: The engines.
            checkout: The folder that holds the services' packages; None when they are found without it.
        """
        self._plan = plan
        self._ports = ports
        self._stores = stores
        self._checkout = checkout

    def of(self, service: str, number: int) -> dict[str, str]:
        """Returns all variables of one process."""
        prefix = f"CHAPPE_{service.upper()}_"
        own = self._shared(service, number) | self._special(service, number)
        named = {prefix + name: value for name, value in own.items()}
        asked = {name: value for name, value in self._plan.settings.items() if _concerns(name, prefix)}
        return {**self._plan.environ, **self._python(), **HANDSHAKE_ENVIRONMENT, **named, **asked}

    def _python(self) -> dict[str, str]:
        paths = [str(self._checkout or ""), self._plan.environ.get("PYTHONPATH", "")]
        path = os.pathsep.join(part for part in paths if part)
        return {"PYTHONPATH": path} if path else {}

    def _shared(self, service: str, number: int) -> dict[str, str]:
        files = tls_files(self._plan.data / "pki", f"svc-{service}")
        return self._traced(service, number) | {
            "LISTEN": f"127.0.0.1:{self._ports.grpc(service, number)}",
            "TLS_CERT_FILE": str(files.cert),
            "TLS_KEY_FILE": str(files.key),
            "TLS_CA_FILE": str(files.ca),
            "PEER_NAME": f"{service}-{number}",
            "DRAIN_S": f"{self._plan.drain_s:g}",
            "MAY_REFLECT": "true",
            "METRICS_LISTEN": f"127.0.0.1:{self._ports.metrics(service, number)}",
        }

    def _traced(self, service: str, number: int) -> dict[str, str]:
        if not self._plan.is_traced:
            return {}
        return {
            "TRACE_FILE": str(self._plan.data / TRACES / f"svc_{service}-{number}.jsonl"),
            # One person at one keyboard wants to see what became of every message.
            "TRACE_SAMPLE_RATIO": "1",
        }

    def _special(self, service: str, number: int) -> dict[str, str]:
        to_identity = {"IDENTITY_TARGET": self.target("identity")}
        to_message = {"MESSAGE_TARGET": self.target("message")}
        to_presence = {"PRESENCE_TARGET": self.target("presence")}
        found: Mapping[str, dict[str, str]] = {
            "identity": {
                "STORE_DSN": self._stores.identity_dsn,
                "PEPPER_FILE": str(self._plan.data / "secrets" / "pepper"),
                # One person at one keyboard: the code is shown, and nobody is made to wait for the next.
                "DEVELOPMENT_CODES": "true",
                "RESEND_WAIT_S": "0",
                "CODES_PER_DAY": "100000",
                "CODES_PER_ADDRESS": "0",
                "CODES_PER_RANGE": "0",
                **to_message,
            },
            "message": {
                **self._stores.ledger,
                "FANOUT_TARGET": self.target("fanout"),
                **to_identity,
            },
            "presence": {"REDIS_URL": self._stores.redis_url, **to_identity},
            "fanout": {"EDGE_TARGET": self.target("edge"), **to_presence},
            "edge": {
                "WS_LISTEN": f"127.0.0.1:{self._ports.ws(number)}",
                "ALLOW_JSON": "true",
                # Everybody on this machine has the same address.
                "ANONYMOUS_PER_ADDRESS": "1000",
                **to_identity,
                **to_message,
                **to_presence,
            },
        }
        return found[service]

    def target(self, service: str) -> str:
        """Returns the addresses of all processes of a service, as its peers are told them."""
        ports = (self._ports.grpc(service, number) for number in range(self._plan.count(service)))
        return ",".join(f"127.0.0.1:{port}" for port in ports)


def _concerns(name: str, prefix: str) -> bool:
    """Says whether a variable is for the service of a prefix, or for all: each loader refuses what it does not know."""
    others = (f"CHAPPE_{service.upper()}_" for service in SERVICES)
    return name.startswith(prefix) or not name.startswith(tuple(others))
