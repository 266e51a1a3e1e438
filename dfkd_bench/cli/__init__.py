"""The command line: each command parses, calls one function, prints. Heavy imports wait inside the commands."""


def main() -> None:
    """Entry point of `dfkd-bench`."""
    import os

    from dfkd_bench.cli.main import entry

    # Threads that wait for each other spin, by default for so long that one busy neighbour on two cores made a run
    # up to forty times slower. The OpenMP runtime reads this when torch is imported; a user's own choice stands.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")

    entry()
