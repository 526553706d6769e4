"""`python -m harness`: a cluster for development, which is kept until it is taken down."""

import argparse
import sys
from collections.abc import Callable, Mapping

from harness import demo, image, kind, release
from harness.engine import engine, is_absent
from harness.run import ClusterError, say
from harness.tools import ToolError


def _up() -> None:
    """Start or reuse the kept cluster, and print the path of its kubeconfig."""
    with kind.cluster(kind.KEPT, keep=True) as it:
        print(it.kubeconfig)


def _demo() -> None:
    """Run the demo on the kept cluster if there is one, otherwise on a temporary one."""
    kept = kind.kubeconfig_of(kind.KEPT).exists()
    with kind.cluster(kind.KEPT if kept else None, keep=kept) as it:
        release.install(it)
        demo.run(it)
        say("done; to keep the cluster, run `make cluster` before `make demo`")


def _down() -> None:
    """Delete the kept cluster and the leftovers of killed runs, and stop our container engine if no run uses it."""
    if is_absent():
        say("nothing to take down")
        return
    with engine() as it:
        kind.sweep(it, kept=True)


def _image() -> None:
    """Build the operator's image and print its name."""
    with engine() as it:
        print(image.build(it))


def _kubeconfig() -> None:
    """Print the path of the kept cluster's kubeconfig."""
    path = kind.kubeconfig_of(kind.KEPT)
    if not path.exists():
        message = "there is no kept cluster: run `python -m harness up`"
        raise ClusterError(message)
    print(path)


_COMMANDS: Mapping[str, Callable[[], None]] = {
    "up": _up,
    "demo": _demo,
    "down": _down,
    "image": _image,
    "kubeconfig": _kubeconfig,
}


def main() -> int:
    """Run a command and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m harness", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in _COMMANDS.items():
        commands.add_parser(name, help=function.__doc__)
    try:
        _COMMANDS[parser.parse_args().command]()
    except (ClusterError, ToolError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
