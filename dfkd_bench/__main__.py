"""`python -m dfkd_bench`: the command line, where the installed command is not on the path."""

from dfkd_bench.cli import main

main()
