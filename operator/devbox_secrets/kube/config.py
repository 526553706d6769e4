"""Decides on the API server and the user: from the kubeconfig and its context, or else the pod's ServiceAccount."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import aiohttp

from devbox_secrets.errors import ConfigError
from devbox_secrets.kube.connection import USER_AGENT, Credentials, proxy_to
from devbox_secrets.kube.kubeconfig import Kubeconfig, Target
from devbox_secrets.kube.kubeconfig_file import Cluster, User

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class ClientConfig:
    """The values of kubectl's options of the same names; the files are read once."""

    kubeconfig: Path | None = None
    context: str | None = None
    as_user: str | None = None
    as_groups: tuple[str, ...] = ()
    as_uid: str | None = None

    @cached_property
    def _files(self) -> Kubeconfig:
        return Kubeconfig.read(self.kubeconfig)

    def target(self) -> Target:
        """Return the API server and the user.

        Raises:
            ConfigError: the configuration is missing, invalid, contradictory or unsupported.
        """
        chosen = self._files.choose(self.context)
        if chosen:
            target = self._files.target(*chosen)
        elif _is_in_cluster():
            target = _in_cluster()
        else:
            raise ConfigError(f"no cluster to connect to: {self._lacking()}; pass {self._remedy()}")
        return Target(target.name, target.cluster, self._impersonating(target.user))

    def namespace(self) -> str:
        """Return the namespace that kubectl would use: the context's, the pod's, or `default`.

        Raises:
            ConfigError: the context or the kubeconfig doesn't exist.
        """
        chosen = self._files.choose(self.context)
        if chosen and chosen[1].namespace:
            return chosen[1].namespace
        if _is_in_cluster():
            file = _SERVICE_ACCOUNT / "namespace"
            return os.environ.get("POD_NAMESPACE") or (file.read_text().strip() if file.exists() else "default")
        if chosen:
            return "default"
        raise ConfigError(f"no account given: {self._lacking()}; pass --account or {self._remedy()}")

    def _lacking(self) -> str:
        files = self._files
        if not files.files:
            return f"there is no kubeconfig at {files.looked_for}, and this isn't a pod with a ServiceAccount"
        return f"{files.looked_for} has no current-context"

    def _remedy(self) -> str:
        contexts = sorted(self._files.contexts)
        return f"--context, one of: {', '.join(contexts)}" if contexts else "--kubeconfig"

    def _impersonating(self, user: User) -> User:
        """Apply the options; as with kubectl, the kubeconfig applies where an option isn't set."""
        given = {"as_": self.as_user, "as_groups": self.as_groups, "as_uid": self.as_uid}
        changed = user.model_copy(update={name: value for name, value in given.items() if value})
        if (changed.as_uid or changed.as_groups) and not changed.as_:
            raise ConfigError("--as-group and --as-uid require --as")
        return changed


async def session(trace_configs: list[aiohttp.TraceConfig]) -> tuple[str, aiohttp.ClientSession]:
    """Return the API server's URL and a session with the current credentials, for a library that sends requests itself.

    Raises:
        ConfigError: the cluster or the credentials are unknown or invalid.
    """
    target = ClientConfig().target()
    if target.cluster.tls_server_name:
        raise ConfigError("tls-server-name in a kubeconfig isn't supported here")
    login = await Credentials(target).login()
    return target.cluster.server, aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=login.tls, limit=0),
        headers=[*USER_AGENT.items(), *login.headers],
        proxy=proxy_to(target),
        trace_configs=trace_configs,
    )


def _is_in_cluster() -> bool:
    known = os.environ.get("KUBERNETES_SERVICE_HOST") and os.environ.get("KUBERNETES_SERVICE_PORT")
    return bool(known) and (_SERVICE_ACCOUNT / "token").is_file()


def _in_cluster() -> Target:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    cluster = Cluster(server=server, certificate_authority=str(_SERVICE_ACCOUNT / "ca.crt"))
    return Target("the pod's ServiceAccount", cluster, User(token_file=str(_SERVICE_ACCOUNT / "token")))
