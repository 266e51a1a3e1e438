"""The command line. Each command parses its options, calls one function and prints. Heavy imports are lazy."""


def main() -> None:
    """Entry point of `dfkd-bench`."""
    import os

    from dfkd_bench.cli.main import entry

    # Waiting OpenMP threads spin. With the default spin count, one other busy process on two cores made a run up to
    # 40 times slower. The OpenMP runtime reads this when torch is imported; a value set by the user is kept.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")

    entry()
