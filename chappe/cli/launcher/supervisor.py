"""Starts again what dies, and keeps certificates fresh, for as long as somebody wants the system up."""

from collections.abc import Callable
from typing import Final

from chappe.cli.launcher.environment import issue_certificates
from chappe.cli.launcher.mesh import Mesh
from chappe.cli.launcher.plan import LaunchError
from chappe.runtime.clock import Clock
from chappe.runtime.pki import LEAF_S
from chappe.runtime.tasks import Tasks

_LOOK_S: Final = 0.2
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0
_STEADY_S: Final = 30.0
"""What has lived for so long may be restarted without a pause again."""


class Supervisor:
    """Watches every process of a mesh; each has a pause of its own, which doubles while it keeps dying."""

    def __init__(
        self,
        mesh: Mesh,
        *,
        tasks: Tasks,
        clock: Clock,
        report: Callable[[str], None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepares.

        Args:
            mesh: What is watched; started already.
            tasks: Owns the watching: closing it ends it.
            clock: For waiting.
            report: Told what died and what became of it.
            changed: Called when another process runs in the place of one that died.
        """
        self._mesh = mesh
        self._tasks = tasks
        self._clock = clock
        self._report = report
        self._changed = changed

    def start(self) -> None:
        """Begins to watch."""
        for name in self._mesh.engines:
            self._tasks.spawn(self._watch(name, 0), name=f"watch {name}")
        for service, number in self._mesh.processes:
            self._tasks.spawn(self._watch(service, number), name=f"watch svc_{service}-{number}")
        self._tasks.spawn(self._renew(), name="renew certificates")

    async def _watch(self, name: str, number: int) -> None:
        pause_s = 0.0
        started_s = self._clock.monotonic_s()
        while True:
            await self._clock.sleep(_LOOK_S)
            if self._is_running(name, number):
                continue
            has_been_steady = self._clock.monotonic_s() - started_s > _STEADY_S
            pause_s = _FIRST_PAUSE_S if has_been_steady or not pause_s else min(2 * pause_s, _LONGEST_PAUSE_S)
            self._report(f"{self._obituary(name, number)}\n  starting it again in {pause_s:g} s")
            await self._clock.sleep(pause_s)
            started_s = self._clock.monotonic_s()
            await self._restart(name, number)

    async def _restart(self, name: str, number: int) -> None:
        try:
            await self._mesh.restart(name, number)
        except LaunchError as error:
            self._changed()
            self._report(str(error))
        else:
            self._changed()
            self._report(f"{name} answers again" if name in self._mesh.engines else f"svc_{name}-{number} serves again")

    def _is_running(self, name: str, number: int) -> bool:
        engine = self._mesh.engines.get(name)
        return self._mesh.processes[name, number].is_running if engine is None else engine.is_running

    def _obituary(self, name: str, number: int) -> str:
        if name in self._mesh.engines:
            return f"{name} has died"
        process = self._mesh.processes[name, number]
        return process.complaint(process.ending)

    async def _renew(self) -> None:
        while True:
            await self._clock.sleep(LEAF_S / 3)
            try:
                issue_certificates(self._mesh.foundation.pki)
            except OSError as error:
                # Two more tries are left before the present ones end.
                self._report(f"the certificates could not be renewed: {error}")
