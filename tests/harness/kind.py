"""A kind cluster: creates, reuses and deletes it."""

import json
import os
import secrets
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.engine import Engine, engine
from harness.nodeimage import node_image
from harness.run import CACHE, ClusterError, is_locked, lock, run, say, step
from harness.tools import KUBERNETES_VERSION, tool, users

PREFIX = "devbox-secrets-"
KEPT = f"{PREFIX}dev"

_FOLDER = CACHE / "clusters"
_READY_SECONDS = 180


@dataclass(frozen=True)
class Cluster:
    """A running cluster; `engine` is None for a cluster that existed before."""

    name: str
    kubeconfig: Path
    engine: Engine | None

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, timeout: float | None = None) -> str:
        """Return the output of kubectl.

        Raises:
            ClusterError: kubectl failed; the message contains its output.
        """
        return run(tool("kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments, stdin=stdin, timeout=timeout)

    def get(self, *arguments: str) -> Any:  # noqa: ANN401 - an object of any kind
        """Return an object or a list, as `kubectl get` returns it."""
        return json.loads(self.kubectl("get", "--output=json", *arguments))

    def helm(self, *arguments: str | Path) -> str:
        """Return the output of helm."""
        return run(tool("helm"), f"--kubeconfig={self.kubeconfig}", *arguments)

    def load(self, image: str | Path) -> None:
        """Load an image into the cluster's node, by its name in the engine or from an archive."""
        if self.engine is None:
            say(f"not loading {image}: an existing cluster pulls its images itself")
            return
        what = "image-archive" if isinstance(image, Path) else "docker-image"
        with step(f"loading {image.name if isinstance(image, Path) else image}"):
            _kind(self.engine, "load", what, str(image), "--name", self.name)


@contextmanager
def cluster(name: str | None = None, *, keep: bool = False) -> Iterator[Cluster]:
    """Yield a ready cluster, and delete it afterwards unless it is to be kept; a kept cluster is reused.

    DEVBOX_SECRETS_TEST_CLUSTER overrides this: `kept` uses the cluster of `python -m harness up`, and `existing` the
    cluster in KUBECONFIG. SIGTERM ends the run like Ctrl-C, so that everything is cleaned up.
    """
    choice = os.environ.get("DEVBOX_SECRETS_TEST_CLUSTER", "new")
    if choice not in {"new", "kept", "existing"}:
        message = f"DEVBOX_SECRETS_TEST_CLUSTER={choice}: must be new (the default), kept or existing"
        raise ClusterError(message)
    if choice == "kept":
        name, keep = KEPT, True
    name = name or f"{PREFIX}{secrets.token_hex(3)}"
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if choice == "existing":
            yield _existing()
            return
        with engine() as it, lock(_lock(name)):
            sweep(it)
            try:
                yield _find(it, name) or _create(it, name, keep=keep)
            finally:
                if not keep:
                    _delete(it, name)
                    _lock(name).unlink()
    finally:
        signal.signal(signal.SIGTERM, previous)


def sweep(it: Engine, *, kept: bool = False) -> None:
    """Delete the clusters of killed runs, and with `kept` also the kept clusters."""
    for name in _kind(it, "get", "clusters").split():
        ours = name.startswith(PREFIX) and _lock(name).exists()
        if not ours or is_locked(_lock(name)):
            continue
        if kept or not (_FOLDER / name / "keep").exists():
            say(f"{name} has no owner")
            _delete(it, name)
            _lock(name).unlink(missing_ok=True)  # another run may be cleaning up, too


def kubeconfig_of(name: str) -> Path:
    """Return the path of a cluster's kubeconfig, which exists as long as the cluster."""
    return _FOLDER / name / "kubeconfig"


def _existing() -> Cluster:
    path = Path(os.environ.get("KUBECONFIG", ""))
    if not path.is_file():
        message = "DEVBOX_SECRETS_TEST_CLUSTER=existing needs KUBECONFIG, the path of one file"
        raise ClusterError(message)
    return Cluster("existing", path, engine=None)


def _lock(name: str) -> Path:
    """Return the lock that a cluster's owner holds until it exits."""
    return _FOLDER / f"{name}.lock"


def _find(it: Engine, name: str) -> Cluster | None:
    if name not in _kind(it, "get", "clusters").split():
        return None
    found = Cluster(name, kubeconfig_of(name), it)
    try:
        version = json.loads(found.kubectl("version", "--output=json", timeout=15))["serverVersion"]["gitVersion"]
    except (ClusterError, KeyError):
        version = "of an unknown version"
    if _minor(version) == _minor(KUBERNETES_VERSION) or (users() and version.startswith("v")):
        return found
    say(f"{name} runs Kubernetes {version}; creating a new cluster")
    _delete(it, name)
    return None


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _create(it: Engine, name: str, *, keep: bool) -> Cluster:
    image = _image(it)
    folder = _FOLDER / name
    folder.mkdir(mode=0o700, exist_ok=True)
    if keep:
        (folder / "keep").touch()
    kubeconfig = kubeconfig_of(name)
    with step(f"creating the cluster {name} with {image or 'the image that kind chooses'}"):
        _kind(
            *(it, "create", "cluster", "--name", name, "--kubeconfig", str(kubeconfig)),
            *(("--image", image) if image else ()),
            *("--wait", f"{_READY_SECONDS}s", "--config", "-"),
            stdin=json.dumps(_configuration()),
        )
        kubeconfig.chmod(0o600)
    made = Cluster(name, kubeconfig, it)
    with step("waiting for CoreDNS"):
        made.kubectl(
            *("--namespace=kube-system", "rollout", "status", "deployment/coredns", f"--timeout={_READY_SECONDS}s")
        )
    return made


def _image(it: Engine) -> str | None:
    """Return the name of the node's image, or None if the user's kind pulls its default image."""
    if named := os.environ.get("DEVBOX_SECRETS_NODE_IMAGE"):
        return named
    return None if users() and it.reaches_registry() else node_image(it)


def _configuration() -> dict[str, object]:
    """Return kind's configuration; JSON is valid YAML."""
    kubelet: dict[str, object] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "syncFrequency": "5s",  # instead of a minute, after which files of running pods are updated
    }
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists() and Path("/sys/fs/cgroup/cpu").exists():
        kubelet["failCgroupV1"] = False
    return {
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "kind": "Cluster",
        "kubeadmConfigPatches": [json.dumps(kubelet)],
    }


def _delete(it: Engine, name: str) -> None:
    with step(f"deleting the cluster {name}"):
        _kind(it, "delete", "cluster", "--name", name, "--kubeconfig", str(kubeconfig_of(name)))
        shutil.rmtree(_FOLDER / name, ignore_errors=True)


def _kind(it: Engine, *arguments: str, stdin: str | None = None) -> str:
    return run(tool("kind"), *arguments, env=it.env, stdin=stdin)
