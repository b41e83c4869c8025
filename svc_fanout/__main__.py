"""Runs the carrier: `python -m svc_fanout`."""

import os
import sys

from chappe.runtime import process
from svc_fanout.app import build
from svc_fanout.config import Config

if __name__ == "__main__":
    sys.exit(process.run("fanout", Config, build, sys.argv[1:], os.environ))
