"""The image of a cluster's node: kind's own if it can be pulled, otherwise built from packages and our programs."""

import hashlib
import json
import platform
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import archive, debian
from harness.engine import Engine
from harness.run import CACHE, ClusterError, run, step
from harness.tools import KUBERNETES_VERSION, source, tools

NODE_PACKAGES = (
    *("systemd", "systemd-sysv", "bash", "busybox-static", "ca-certificates", "conntrack", "e2fsprogs", "ethtool"),
    *("iproute2", "iptables", "jq", "kmod", "libseccomp2", "mount", "nftables", "procps", "runc", "util-linux"),
)
_LOCAL = ("containerd", "containerd-shim-runc-v2", "ctr", "crictl")
_KUBERNETES = ("kubelet", "kubeadm", "kubectl")
_CNI = ("bridge", "host-local", "loopback", "portmap")
_CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "coredns")
_LABEL = f"devbox-secrets.dev/node={KUBERNETES_VERSION}"

_CONFLIST = {
    "cniVersion": "1.0.0",
    "name": "devbox-secrets",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.244.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
# kind applies both files; the network comes from the file above, and nothing uses storage.
_MANIFEST = "{apiVersion: v1, kind: ConfigMap, metadata: {name: devbox-secrets-%s, namespace: kube-system}}\n"
_IMPORT_UNIT = """\
[Unit]
Description=Import the cluster's own images
Requires=containerd.service
After=containerd.service
Before=kubelet.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'ls /kind/images/*.tar | xargs -P 4 -n 1 ctr --namespace k8s.io images import'

[Install]
WantedBy=multi-user.target
"""
_DOCKERFILE = """\
FROM {base}
ENV container=docker
STOPSIGNAL SIGRTMIN+3
ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]
"""


def node_image(engine: Engine) -> str:
    """Return the name of a node image in the engine; it is pulled or built on first use."""
    image = _kind_default()
    if image is not None and engine.pull(image):
        return image
    with ThreadPoolExecutor() as pool:  # download packages while the programs are compiled
        packages = pool.submit(debian.tree_of, *NODE_PACKAGES)
        programs = tools(*_LOCAL, *_KUBERNETES, *_CNI, *_CONTROL_PLANE, "kube-proxy")
        base = packages.result()
    name = f"devbox-secrets-node:{KUBERNETES_VERSION}-{_key(programs, base)}"
    if not engine.has_image(name):
        engine.docker("image", "prune", "--all", "--force", f"--filter=label={_LABEL}")  # the images that it replaces
        with step(f"building the node image {name} (once)"), debian.unpacked(base) as tree:
            _add_kind_files(tree)
            _add_programs(tree, programs)
            _add_images(tree, programs)
            _add_units(tree)
            _import(engine, tree, name)
    return name


def _kind_default() -> str | None:
    """Return kind's default image with its digest, or None if it has another minor version of Kubernetes."""
    text = (source("kind") / "pkg/apis/config/defaults/image.go").read_text()
    found = re.search(r'const Image = "(kindest/node:(v\d+\.\d+)\.\d+@sha256:[0-9a-f]{64})"', text)
    if found is None:
        message = "kind's source no longer names its default image where harness/nodeimage.py looks for it"
        raise ClusterError(message)
    return found[1] if KUBERNETES_VERSION.startswith(f"{found[2]}.") else None


def _key(programs: dict[str, Path], base: Path) -> str:
    """Hash all inputs of the image; paths in the cache contain the hash of their inputs."""
    parts = [str(path.relative_to(CACHE)) for path in (*programs.values(), base)]
    parts += [source("kind").name, *(Path(module).read_text() for module in (__file__, archive.__file__))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _add_kind_files(tree: Path) -> None:
    files = source("kind") / "images/base/files"
    for path in files.rglob("*"):
        target = tree / path.relative_to(files)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            target.chmod(0o755 if target.parent.name == "bin" else 0o644)
    for name in ("default-cni", "default-storage"):
        manifest = tree / "kind/manifests" / f"{name}.yaml"
        manifest.parent.mkdir(exist_ok=True)
        manifest.write_text(_MANIFEST % name)
    (tree / "kind/version").write_text(KUBERNETES_VERSION)
    (tree / "etc/kubernetes/manifests").mkdir(parents=True)


def _add_programs(tree: Path, programs: dict[str, Path]) -> None:
    for folder, names in {"usr/local/bin": _LOCAL, "usr/bin": _KUBERNETES, "opt/cni/bin": _CNI}.items():
        (tree / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copy(programs[name], tree / folder / name)
    network = tree / "etc/cni/net.d/10-devbox-secrets.conflist"
    network.parent.mkdir(parents=True)
    network.write_text(json.dumps(_CONFLIST))

    # As in kind's own image, with one more hook and no limits.
    specification = json.loads(run(programs["ctr"], "oci", "spec"))
    hooks = specification.setdefault("hooks", {}).setdefault("createContainer", [])
    hooks.append({"path": "/kind/bin/mount-product-files.sh"})
    specification["process"].pop("rlimits", None)
    (tree / "etc/containerd/cri-base.json").write_text(json.dumps(specification))

    config = tree / "etc/containerd/config.toml"
    text = config.read_text()
    # Lowering the score needs CAP_SYS_RESOURCE, which some machines don't grant.
    edited = text.replace("restrict_oom_score_adj = false", "restrict_oom_score_adj = true")
    if edited == text:
        message = (
            "kind's containerd configuration no longer has restrict_oom_score_adj, which harness/nodeimage.py sets"
        )
        raise ClusterError(message)
    config.write_text(edited)


def _add_images(tree: Path, programs: dict[str, Path]) -> None:
    folder = tree / "kind/images"
    folder.mkdir()
    listed = run(programs["kubeadm"], "config", "images", "list", "--kubernetes-version", KUBERNETES_VERSION)
    for image in listed.split():
        name = image.rsplit("/", 1)[-1].partition(":")[0]
        if name in _CONTROL_PLANE:
            path = f"/usr/local/bin/{name}"
            _write(folder, archive.Image(image, entrypoint=[path], files={path: programs[name]}))
        elif name == "kube-proxy":
            _write(folder, _kube_proxy(tree, image, programs[name]))
    sandbox = re.search(r'sandbox_image = "(.+)"', (tree / "etc/containerd/config.toml").read_text())
    if sandbox is None:
        message = "kind's containerd configuration no longer names the sandbox image where harness/nodeimage.py looks"
        raise ClusterError(message)
    busybox = {"/bin/busybox": tree / "bin/busybox"}
    _write(folder, archive.Image(sandbox[1], entrypoint=["/bin/busybox", "sleep", "infinity"], files=busybox))


def _kube_proxy(tree: Path, image: str, program: Path) -> archive.Image:
    """Copy kube-proxy next to the programs that it calls, and these next to their libraries."""
    called = {f"/usr/sbin/{name}" for name in ("xtables-nft-multi", "conntrack", "nft")} | {"/bin/kmod"}
    plugins = {f"/{path.relative_to(tree)}" for path in tree.glob("usr/lib/*/xtables/*.so")}
    names = called | plugins | debian.libraries_of(tree, *called, *plugins)
    tables = [f"ip{six}tables{verb}" for six in ("", "6") for verb in ("", "-save", "-restore")]
    return archive.Image(
        image,
        entrypoint=["/usr/local/bin/kube-proxy"],
        files={"/usr/local/bin/kube-proxy": program} | {name: tree / name.lstrip("/") for name in names},
        links={f"/usr/sbin/{name}": "xtables-nft-multi" for name in tables} | {"/sbin/modprobe": "/bin/kmod"},
    )


def _write(folder: Path, image: archive.Image) -> None:
    name = image.name.rsplit("/", 1)[-1].partition(":")[0]
    archive.write(image, folder / f"{name}.tar", platform.machine())


def _add_units(tree: Path) -> None:
    """Start only the services that the node needs, as the Dockerfile of kind's own image does."""
    wanted = ["etc/systemd/system/*.wants/*", "lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service"]
    wanted += [f"lib/systemd/system/{target}.target.wants/*" for target in ("multi-user", "local-fs", "basic")]
    wanted += [f"lib/systemd/system/sockets.target.wants/*{kind}*" for kind in ("udev", "initctl")]
    for pattern in wanted:
        for link in tree.glob(pattern):
            link.unlink()
    with (tree / "etc/systemd/journald.conf").open("a") as journal:
        journal.write("ReadKMsg=no\n")
    (tree / "etc/systemd/system/import-images.service").write_text(_IMPORT_UNIT)
    services = ("kubelet", "containerd", "undo-mount-hacks", "import-images")
    run("chroot", tree, "systemctl", "enable", *services)
    run("chroot", tree, "systemctl", "mask", "systemd-binfmt.service")


def _import(engine: Engine, tree: Path, name: str) -> None:
    base = f"{name}-files"
    with subprocess.Popen(
        ["tar", "--create", "--directory", str(tree), "--numeric-owner", "."], stdout=subprocess.PIPE
    ) as tar:
        subprocess.run(
            ["docker", "import", "-", base], env=engine.env, stdin=tar.stdout, stdout=subprocess.DEVNULL, check=True
        )
    if tar.returncode:
        message = f"tar could not read {tree}; is the disk full?"
        raise ClusterError(message)
    engine.docker("build", "--quiet", "--tag", name, "--label", _LABEL, "-", stdin=_DOCKERFILE.format(base=base))
    engine.docker("image", "rm", base)
