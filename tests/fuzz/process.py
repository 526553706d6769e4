"""Runs one target under atheris: `python -m fuzz.process MODULE`, then libFuzzer's options and corpus folders."""

import sys
from contextlib import nullcontext
from importlib import import_module

import atheris


def main() -> None:
    """Run the target; this process ends with libFuzzer."""
    # The modules imported here report to libFuzzer which branches an input takes.
    with atheris.instrument_imports(include=["devbox_secrets", "dotenv", "fuzz"]):
        target = import_module(sys.argv[1])
    with target.start() if hasattr(target, "start") else nullcontext(target.check) as check:
        atheris.Setup([sys.argv[0], *sys.argv[2:]], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
