"""A service that does nothing but start, serve its health over mutual TLS and stop, for tests of the launcher."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import grpc.aio

from chappe.runtime.clock import SystemClock
from chappe.runtime.health import Health, add_health
from chappe.runtime.pki import TlsFiles
from chappe.runtime.tasks import Tasks
from chappe.runtime.tls import server_credentials
from tests.runtime.probe import ALONE

SERVICES = ("identity", "message", "presence", "fanout", "edge")


async def serve(service: str, settings: dict[str, str]) -> None:
    files = TlsFiles(
        cert=Path(settings["TLS_CERT_FILE"]), key=Path(settings["TLS_KEY_FILE"]), ca=Path(settings["TLS_CA_FILE"])
    )
    wrong = Path(settings.get("WRONG_CLOCK", "/nowhere"))

    async def clock_is_right() -> None:
        if await asyncio.to_thread(wrong.exists):
            raise ValueError("the clock is off")

    health = Health({"clock": clock_is_right}, clock=SystemClock())
    await health.refresh()
    tasks = Tasks()
    health.start(tasks)
    server = grpc.aio.server(options=ALONE)
    add_health(health, server)
    server.add_secure_port(settings["LISTEN"], server_credentials(files))
    await server.start()
    health.open()
    print(json.dumps({"ready": True, "service": service, "address": settings["LISTEN"]}), flush=True)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await tasks.aclose()
    print(f"{service} stops", flush=True)
    await server.stop(0)


def main() -> None:
    service = next(name for name in SERVICES if f"CHAPPE_{name.upper()}_LISTEN" in os.environ)
    prefix = f"CHAPPE_{service.upper()}_"
    settings = {name.removeprefix(prefix): value for name, value in os.environ.items() if name.startswith(prefix)}
    if "FAIL" in settings:
        sys.exit(f"{service} fails: {settings['FAIL']}")
    asyncio.run(serve(service, settings))


if __name__ == "__main__":
    main()
