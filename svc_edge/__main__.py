"""Runs the bridge: `python -m svc_edge`."""

import os
import sys

from chappe.runtime import process
from svc_edge.app import build
from svc_edge.config import Config

if __name__ == "__main__":
    sys.exit(process.run("edge", Config, build, sys.argv[1:], os.environ))
