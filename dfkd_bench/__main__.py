"""`python -m dfkd_bench`: the command line without the installed command."""

from dfkd_bench.cli import main

if __name__ == "__main__":  # a worker process imports this module too
    main()
