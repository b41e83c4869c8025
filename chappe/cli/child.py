"""Runs one service so that it dies with its launcher: `python -m chappe.cli.child <launcher's pid> <module>`.

The wish is made here, in the child, and not between fork and exec: forking a launcher that has threads is unsafe.
Linux only; elsewhere a service outlives a launcher that is killed, and the next start names its port.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


def run(launcher_pid: int, module: str) -> None:
    """Becomes the module, as `python -m` would run it, unless the launcher is gone already."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        # What top and ps -e show.
        libc.prctl(_PR_SET_NAME, module.encode(), 0, 0, 0)
        if os.getppid() != launcher_pid:
            sys.exit(f"{module} was not started: its launcher {launcher_pid} is gone")
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run(int(sys.argv[1]), sys.argv[2])
