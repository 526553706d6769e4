"""`helm test` on a real cluster: the image runs `devbox-secrets check` with the pod's own token."""

from harness.kind import Cluster
from harness.release import NAMESPACE


def test_helm_test_shows_what_check_says_and_leaves_nothing(cluster: Cluster) -> None:
    said = cluster.helm("test", NAMESPACE, f"--namespace={NAMESPACE}", "--timeout=120s", "--logs")
    assert "operator" in said
    assert "2 of 2 replicas are ready" in said
    kinds = "pods,serviceaccounts,clusterroles,clusterrolebindings,roles,rolebindings"
    label = "--selector=app.kubernetes.io/component=check"
    assert cluster.kubectl("get", kinds, label, f"--namespace={NAMESPACE}", "--output=name") == ""
