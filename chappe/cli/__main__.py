"""Runs the command as `python -m chappe.cli`."""

from chappe.cli.main import main

main(prog_name="chappe")
