"""Run the command line as ``python -m edgekit``."""

from edgekit.cli.main import main

main()
