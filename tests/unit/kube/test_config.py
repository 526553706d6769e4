"""Which cluster and namespace: the kubeconfig's or the pod's own, and sentences for what can't be used."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from devbox_secrets.errors import ConfigError
from devbox_secrets.kube import config

CANARY = "canary-7d21"
KUBECONFIG: Mapping[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "dev",
    "contexts": [
        {"name": "dev", "context": {"cluster": "one", "user": "me", "namespace": "team-a"}},
        {"name": "prod", "context": {"cluster": "two", "user": "me"}},
        {"name": "lost", "context": {"cluster": "nowhere", "user": "me"}},
    ],
    "clusters": [
        {"name": "one", "cluster": {"server": "https://one.example"}},
        {"name": "two", "cluster": {"server": "https://two.example"}},
    ],
    "users": [{"name": "me", "user": {"token": CANARY}}],
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be on a machine without a kubeconfig, and in no pod; give where kubectl looks for the former."""
    path = tmp_path / "home" / "config"
    path.parent.mkdir()
    monkeypatch.setattr(config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    monkeypatch.setattr(config, "_SERVICE_ACCOUNT", tmp_path / "serviceaccount")
    return path


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in a pod."""
    account = tmp_path / "serviceaccount"
    account.mkdir()
    for name, text in {"token": "of-the-pod", "namespace": "its-namespace\n", "ca.crt": "x"}.items():
        (account / name).write_text(text)
    loader = "kubernetes.aio.config.incluster_config"
    monkeypatch.setattr(f"{loader}.SERVICE_TOKEN_FILENAME", str(account / "token"))
    monkeypatch.setattr(f"{loader}.SERVICE_CERT_FILENAME", str(account / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")


def write(path: Path, text: str = "", **changes: object) -> Path:
    """Write a kubeconfig: this text, or the usual one with some changes."""
    path.write_text(text or yaml.safe_dump({**KUBECONFIG, **changes}))
    return path


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    return write(tmp_path / "kubeconfig")


@pytest.mark.parametrize(("context", "host"), [(None, "https://one.example"), ("prod", "https://two.example")])
async def test_the_kubeconfig_s_context_says_which_cluster(context: str | None, host: str, kubeconfig: Path) -> None:
    loaded = await config.load(kubeconfig, context)
    assert loaded.host == host
    assert CANARY in str(await loaded.auth_settings())


async def test_a_kubeconfig_at_kubectl_s_own_place_needs_no_option(home: Path) -> None:
    write(home)
    assert (await config.load()).host == "https://one.example"
    assert config.current_namespace() == "team-a"


async def test_inside_a_cluster_the_pod_s_own_account_is_used(pod: None) -> None:
    assert (await config.load()).host == "https://10.96.0.1:443"
    assert config.current_namespace() == "its-namespace"


async def test_inside_a_cluster_a_kubeconfig_goes_before(pod: None, home: Path, kubeconfig: Path) -> None:
    assert (await config.load(kubeconfig)).host == "https://one.example"
    write(home)
    assert (await config.load()).host == "https://one.example"
    assert config.current_namespace() == "team-a"


@pytest.mark.parametrize(("context", "namespace"), [(None, "team-a"), ("dev", "team-a"), ("prod", "default")])
def test_the_namespace_is_the_context_s_or_default(context: str | None, namespace: str, kubeconfig: Path) -> None:
    assert config.current_namespace(kubeconfig, context) == namespace


async def test_without_any_kubeconfig_a_sentence_says_where_it_was_looked_for(home: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        await config.load()
    assert str(caught.value) == (
        f"no cluster to connect to: there is no kubeconfig at {home}; name one with --kubeconfig"
    )
    with pytest.raises(ConfigError) as caught:
        config.current_namespace()
    assert str(caught.value) == (
        "there is no kubeconfig to read the account from"
        f" (there is no kubeconfig at {home}; name one with --kubeconfig); name it with --account"
    )


async def test_a_context_that_is_not_there_is_named(kubeconfig: Path) -> None:
    with pytest.raises(ConfigError, match="no-such-context") as caught:
        await config.load(kubeconfig, "no-such-context")
    assert CANARY not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        config.current_namespace(kubeconfig, "no-such-context")
    assert str(caught.value) == "the kubeconfig has no context no-such-context"


async def test_a_current_context_that_is_not_there_is_a_sentence(kubeconfig: Path) -> None:
    write(kubeconfig, **{"current-context": "gone"})
    with pytest.raises(ConfigError, match="gone"):
        await config.load(kubeconfig)
    with pytest.raises(ConfigError, match="its current-context isn't one of its contexts"):
        config.current_namespace(kubeconfig)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\n", id="empty"),
        pytest.param(f"{CANARY}: [", id="no YAML"),
        pytest.param(f"- {CANARY}", id="a list"),
        pytest.param(CANARY, id="a text"),
        pytest.param(f"current-context: dev\nx: {CANARY}", id="no contexts"),
        pytest.param(yaml.safe_dump({**KUBECONFIG, "contexts": [{"context": CANARY}]}), id="a context without a name"),
        pytest.param(yaml.safe_dump({**KUBECONFIG, "contexts": {"x": CANARY}}), id="contexts that are no list"),
        pytest.param(yaml.safe_dump({**KUBECONFIG, "current-context": "lost"}), id="a context without its cluster"),
        pytest.param(yaml.safe_dump({**KUBECONFIG, "users": [{"token": CANARY}]}), id="a user without a name"),
        pytest.param("\0" + CANARY, id="binary"),
    ],
)
async def test_a_damaged_kubeconfig_is_a_sentence_that_quotes_nothing_of_it(text: str, kubeconfig: Path) -> None:
    write(kubeconfig, text)
    with pytest.raises(ConfigError) as caught:
        await config.load(kubeconfig)
    assert str(caught.value).startswith("no cluster to connect to: ")
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__


async def test_a_kubeconfig_that_can_not_be_read_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no cluster to connect to"):
        await config.load(tmp_path)
    with pytest.raises(ConfigError, match="name it with --account"):
        config.current_namespace(tmp_path)
