"""`helm test` on a real cluster runs `devbox-secrets check` in a pod with the pod's own token."""

from harness.kind import Cluster
from harness.release import NAMESPACE


def test_helm_test_prints_the_result_of_check_and_cleans_up(cluster: Cluster) -> None:
    output = cluster.helm("test", NAMESPACE, f"--namespace={NAMESPACE}", "--timeout=120s", "--logs")
    assert "operator" in output
    assert "2 of 2 replicas are ready" in output
    kinds = "pods,serviceaccounts,clusterroles,clusterrolebindings,roles,rolebindings"
    label = "--selector=app.kubernetes.io/component=check"
    assert cluster.kubectl("get", kinds, label, f"--namespace={NAMESPACE}", "--output=name") == ""
