"""Runs the registry: `python -m svc_presence`."""

import os
import sys

from chappe.runtime import process
from svc_presence.app import build
from svc_presence.config import Config

if __name__ == "__main__":
    sys.exit(process.run("presence", Config, build, sys.argv[1:], os.environ))
