"""Starts, watches and stops the whole system on one machine: two engines and five services as processes.

`chappe up` is the command; tests and benchmarks drive the same class::

    async with Mesh(Plan(data=folder, edges=2)) as mesh:
        print(mesh.ws)
        await mesh.kill("message")
        await mesh.restart("message")
"""

from chappe.cli.launcher.mesh import Mesh
from chappe.cli.launcher.plan import SERVICES, LaunchError, Plan
from chappe.cli.launcher.supervisor import Supervisor

__all__ = ["SERVICES", "LaunchError", "Mesh", "Plan", "Supervisor"]
