"""What `make demo` shows, on the cluster that is there."""

import pytest

from harness import demo
from harness.kind import Cluster


def test_the_demo_shows_the_main_job(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    demo.run(cluster, namespace="devbox-secrets-demo")
    shown = capfd.readouterr().out
    assert "GITHUB_TOKEN is not set" in shown
    assert "ghp_pasted-as-it-is" not in shown
