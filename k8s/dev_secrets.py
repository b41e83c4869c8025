# noqa: INP001 - a script beside the manifests, not a package
"""Prints the Secrets of the development overlay: `python k8s/dev_secrets.py FOLDER | kubectl apply -f -`.

With `--files OUT` it writes them as files instead, a folder for each Secret, for compose.yaml.

The folder keeps the development authority and the passwords, so that a second run gives the same passwords with new
certificates. Certificates live 24 hours: run it again, and the services follow the replaced files by themselves.
"""

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path
from secrets import token_hex

if __package__ is None:  # run as a script, where the checkout is not yet on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chappe.runtime.pki import TRUST_DOMAIN, DevelopmentCa, spiffe_id

NAMESPACE = "chappe"
SERVICES = ("edge", "fanout", "identity", "message", "presence")
PRESENCE_KEYS = ("connection", "online", "lastseen", "nonce", "typing", "typists")
"""What the keys of svc_presence begin with."""

Secret = dict[str, str]


def main() -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Prints the Secrets of the development overlay.")
    parser.add_argument("folder", type=Path, help="where the authority and the passwords are kept; not in the checkout")
    parser.add_argument("--files", type=Path, metavar="OUT", help="write files here; whoever sees them may read them")
    asked = parser.parse_args()
    secrets = make(asked.folder)
    if asked.files is not None:
        _write(secrets, asked.files)
        return 0
    for name, data in secrets.items():
        # YAML reads JSON, and the image that runs this has no library for more.
        sys.stdout.write(f"---\n{json.dumps(_manifest(name, data), indent=2)}\n")
    return 0


def make(folder: Path) -> dict[str, Secret]:
    """Returns the files of every Secret, by its name.

    Args:
        folder: Keeps the authority and the passwords; made when it is missing, for its owner only.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    passwords = {
        name: _kept(folder / name) for name in ("superuser", "svc-identity", "svc-message", "svc-presence", "pepper")
    }
    return {
        **_certificates(folder / "ca"),
        "svc-identity": {
            "store-dsn": _dsn("identity", passwords["svc-identity"]),
            "pepper": passwords["pepper"],
        },
        "svc-message": {"store-dsn": _dsn("message", passwords["svc-message"])},
        "svc-presence": {"redis-url": f"redis://svc-presence:{passwords['svc-presence']}@valkey:6379/0"},
        "postgres": {
            "superuser-password": passwords["superuser"],
            "svc-identity-password": passwords["svc-identity"],
            "svc-message-password": passwords["svc-message"],
        },
        "valkey": {"users.acl": _users(passwords["svc-presence"])},
    }


def _write(secrets: dict[str, Secret], out: Path) -> None:
    for name, files in secrets.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            # Containers follow these by name: a whole file takes the place of the one before.
            draft = out / name / f".{file}"
            draft.write_text(content)
            draft.replace(out / name / file)


def _certificates(folder: Path) -> dict[str, Secret]:
    authority = DevelopmentCa.open(folder)
    made: dict[str, Secret] = {}
    for service in SERVICES:
        name = f"svc-{service}"
        files = authority.issue(name, spiffe_id(TRUST_DOMAIN, name), dns_names=[name], ips=[])
        made[f"{name}-tls"] = {
            "tls.crt": files.cert.read_text(),
            "tls.key": files.key.read_text(),
            "ca.crt": files.ca.read_text(),
        }
    return made


def _kept(path: Path) -> str:
    """Returns the password of a file, and makes one when there is none."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(token_hex(32))
    return path.read_text()


def _dsn(service: str, password: str) -> str:
    return f"postgresql://svc_{service}:{password}@postgres:5432/svc_{service}"


def _users(password: str) -> str:
    digest = hashlib.sha256(password.encode()).hexdigest()
    keys = " ".join(f"~{name}:*" for name in PRESENCE_KEYS)
    return f"user default off\nuser svc-presence on #{digest} {keys} +@all -@admin -@dangerous\n"


def _manifest(name: str, data: Secret) -> dict[str, object]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "stringData": data}


if __name__ == "__main__":
    sys.exit(main())
