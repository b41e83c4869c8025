"""Runs a service as a process: configuration, logs, event loop, signals, exit codes."""

import asyncio
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

import uvloop

from chappe.runtime import config
from chappe.runtime.app import App, StartError
from chappe.runtime.channels import AddressError
from chappe.runtime.clock import system_seams
from chappe.runtime.config import ConfigError, ServerSettings
from chappe.runtime.contract import ContractError
from chappe.runtime.errors import ChappeError
from chappe.runtime.logs import JsonFormatter, configure_logs
from chappe.runtime.tls import TlsFilesError

__all__ = ["App", "Build", "HasServer", "StartError", "Stopper", "ready_line", "run", "usage"]

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_MISCONFIGURED = 2
# Measured with every prototype: full collections over long-lived objects cost more than they free.
_GC_THRESHOLDS = (50_000, 20, 20)

_log = logging.getLogger(__name__)


class HasServer(Protocol):
    """A configuration with the settings that every service has."""

    @property
    def server(self) -> ServerSettings:
        """What every service lets an operator set."""
        ...


NO_COMMANDS: Final[Mapping[str, str]] = {}
"""Of a program that only serves."""

_Config = TypeVar("_Config", bound=HasServer)
Build = Callable[[_Config, App], Awaitable[None]]
"""Adds a service's stores, peers and doors to its app."""


def run(
    service: str,
    config_type: type[_Config],
    build: Build[_Config],
    argv: Sequence[str],
    environ: Mapping[str, str],
    commands: Mapping[str, str] = NO_COMMANDS,
) -> int:
    """Runs a service until it is told to stop, and returns the exit code for the process.

    Once it is ready, one line of JSON with its addresses goes to stdout; logs go to stderr.

    Args:
        service: The service's name without its prefix, like "message".
        config_type: What an operator can set.
        build: Adds the stores, peers and doors.
        argv: The arguments without the program's name.
        environ: Where the configuration comes from.
        commands: What else the program does, for its help: each command with what it does.
    """
    known = {"--print-config", "--help", "-h"}
    unknown = [argument for argument in argv if argument not in known]
    if unknown:
        sys.stderr.write(f"there is no {unknown[0]}\n{_synopsis(service, commands)}\n--help lists all settings, too\n")
        return EXIT_MISCONFIGURED
    if {"--help", "-h"} & set(argv):
        sys.stdout.write(usage(service, config_type, commands))
        return EXIT_OK
    try:
        loaded = config.load(config_type, service, environ)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_MISCONFIGURED
    if argv:
        sys.stdout.write(config.describe(loaded, service) + "\n")
        return EXIT_OK
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(service, loaded, build))


def usage(service: str, config_type: type, commands: Mapping[str, str] = NO_COMMANDS) -> str:
    """Returns the text of --help: how to run the service, its commands, and everything that can be set."""
    lines = [_synopsis(service, commands), "", "Environment:"]
    for setting in config.settings(config_type, service):
        lines += [f"  {setting.name}", f"      {setting.doc}"]
    return "\n".join([*lines, ""])


def _synopsis(service: str, commands: Mapping[str, str]) -> str:
    lines = [f"Usage: python -m svc_{service} [--print-config] [--help]{' | COMMAND' if commands else ''}"]
    if commands:
        lines += ["", "Commands, which do that and end:"]
        lines += [f"  {name:<14} {what}" for name, what in commands.items()]
    return "\n".join(lines)


def ready_line(app: App) -> str:
    """Returns the line that tells a launcher where the process answers."""
    return json.dumps({"ready": True, "service": app.service, "pid": os.getpid()} | app.addresses)


async def _run(service: str, loaded: _Config, build: Build[_Config]) -> int:
    app = App(service, loaded.server, seams=system_seams())
    formatter = JsonFormatter(service, app.peer_name, app.telemetry.trace_id)
    configure_logs(loaded.server.log_level, formatter, sys.stderr)
    try:
        await _serve(app, loaded, build)
    except (StartError, ContractError, TlsFilesError, AddressError, ChappeError, OSError) as error:
        _log.critical("svc_%s did not start: %s", service, error)
        return EXIT_FAILED
    except asyncio.CancelledError:
        _log.info("svc_%s was stopped before it had started", service)
        return EXIT_OK
    _log.info("svc_%s has stopped", service)
    return app.exit_code


async def _serve(app: App, loaded: _Config, build: Build[_Config]) -> None:
    stop = Stopper(app, asyncio.current_task())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.signalled)
    async with app:
        await build(loaded, app)
        await app.start()
        stop.has_started = True
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        sys.stdout.write(ready_line(app) + "\n")
        sys.stdout.flush()
        _log.info("svc_%s answers on %s", app.service, app.address)
        await app.ended.wait()


class Stopper:
    """Decides what a signal means: the first stops politely, the second at once."""

    def __init__(self, app: App, starting: "asyncio.Task[None] | None") -> None:
        """Watches over an app that is being built by a task."""
        self._app = app
        self._starting = starting
        self.has_started = False

    def signalled(self) -> None:
        """Takes a signal."""
        if not self.has_started:
            if self._starting is not None:
                self._starting.cancel()
        elif self._app.ended.is_set():
            self._app.hurry()
        else:
            self._app.ended.set()
