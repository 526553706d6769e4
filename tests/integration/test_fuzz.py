"""Replays the corpora of `make fuzz` for the targets that use an API server."""

from fuzz.runner import CORPORA
from fuzz.targets import annotations, api_server
from harness.controlplane import ControlPlane
from integration.support.webhook import Fallback


def test_the_operator_reads_everything_that_the_api_server_accepts(controlplane: ControlPlane) -> None:
    with api_server.checking(controlplane) as check:
        for path in sorted((CORPORA / "api_server").iterdir()):
            check(path.read_bytes())


def test_the_policy_and_the_webhook_return_the_same_result(controlplane: ControlPlane, fallback: Fallback) -> None:
    with annotations.checking(controlplane, fallback.controlplane) as check:
        for path in sorted((CORPORA / "annotations").iterdir()):
            check(path.read_bytes())
