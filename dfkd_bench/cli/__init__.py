"""The command line: each command parses, calls one function, prints. Heavy imports wait inside the commands."""


def main() -> None:
    """Entry point of `dfkd-bench`."""
    from dfkd_bench.cli.main import entry

    entry()
