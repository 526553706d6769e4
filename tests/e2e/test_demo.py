"""`make demo` works, on the cluster of the tests."""

import pytest

from harness import demo
from harness.kind import Cluster


def test_the_demo_shows_the_main_use_case(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    demo.run(cluster, namespace="devbox-secrets-demo")
    output = capfd.readouterr().out
    assert "GITHUB_TOKEN is not set" in output
    assert "ghp_pasted-as-it-is" not in output
