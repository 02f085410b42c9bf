"""A real Kubernetes on one machine without Docker: a control plane, and nodes that are network namespaces, each with a
containerd and a kubelet of its own.

    python e2e/cluster/local.py up 6 | down | load TAR | copy FROM TO IMAGE... | kill N | start N | wipe N | cut N |
    join N | stop-api | start-api

S4_E2E_VARIANT chooses another network, or zones (addresses.py). Needs root, the programs that e2e/cluster/programs
builds (S4_E2E_BIN), and Debian's containerd, runc, containernetworking-plugins, iptables and conntrack. State is in
S4_E2E_STATE; a node's disks are in its folder `disks`. Nodes have no NetworkPolicy enforcement and no provisioner of
volumes: tests make local volumes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from pki import KUBECONFIG, authority, certificate, kubeconfig
from processes import STATE, kill, sh, start, stop, wait

from addresses import FAMILIES, HOST, zone

BIN = Path(os.environ.get("S4_E2E_BIN", Path.home() / ".cache" / "s4-e2e" / "bin"))
BRIDGE, CGROUP, PAUSE = "s4e2e", "s4-e2e", "s4-e2e/pause:1"
WEIGHT = 12 * 1024  # in cgroup v1's shares: two processes of each machine
NODAD: dict[int, tuple[str, ...]] = {4: (), 6: ("nodad",)}  # an address is used at once
FORWARD = ("net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv6.conf.all.forwarding=1")
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd")


def kubectl(*words: object, check: bool = True) -> str:
    return sh(BIN / "kubectl", f"--kubeconfig={KUBECONFIG}", *words, check=check)


# -- the control plane


def start_api() -> None:
    pki, policy = STATE / "pki", STATE / "audit.yaml"
    listed = [
        {"level": "Metadata", "userGroups": ["system:serviceaccounts:s4"], "omitStages": ["RequestReceived"]},
        {"level": "None"},
    ]
    policy.write_text(yaml.safe_dump({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": listed}))
    start(
        "apiserver",
        BIN / "kube-apiserver",
        "--etcd-servers=http://127.0.0.1:12379",
        f"--bind-address={'::' if ':' in HOST else '0.0.0.0'}",
        f"--advertise-address={HOST}",
        "--secure-port=6443",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--kubelet-client-certificate={pki}/admin.crt",
        f"--kubelet-client-key={pki}/admin.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        f"--service-cluster-ip-range={','.join(one.services for one in FAMILIES)}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={STATE}/log/audit.json",
    )
    wait("the API server", 90, lambda: kubectl("get", "--raw", "/readyz", check=False).strip() == "ok")


def control_plane() -> None:
    for folder in ("pki", "log", "pid", "etcd"):
        (STATE / folder).mkdir(parents=True, exist_ok=True)
    authority()
    sh("ip", "link", "add", BRIDGE, "type", "bridge")
    for one in FAMILIES:
        sh("ip", "addr", "add", f"{one.host}/{one.bits}", "dev", BRIDGE, *NODAD[one.version])
    sh("ip", "link", "set", BRIDGE, "up")
    sh("sysctl", "-qw", *FORWARD)
    sh("mount", "--make-rshared", "/")
    local = "http://127.0.0.1"
    start(
        "etcd",
        BIN / "etcd",
        "--data-dir",
        STATE / "etcd",
        "--listen-client-urls",
        f"{local}:12379",
        "--advertise-client-urls",
        f"{local}:12379",
        "--listen-peer-urls",
        f"{local}:12380",
        "--unsafe-no-fsync",
    )
    start_api()
    start(
        "controllers",
        BIN / "kube-controller-manager",
        f"--kubeconfig={STATE}/controllers.conf",
        f"--root-ca-file={STATE}/pki/ca.crt",
        f"--service-account-private-key-file={STATE}/pki/sa.key",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--controllers=*,-nodeipam,-node-route-controller,-cloud-node-lifecycle-controller",
        "--node-monitor-grace-period=20s",
    )
    start(
        "scheduler",
        BIN / "kube-scheduler",
        f"--kubeconfig={STATE}/scheduler.conf",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    )
    (STATE / "Corefile").write_text(
        f".:53 {{\n    bind {HOST}\n    kubernetes cluster.local {{\n        kubeconfig {KUBECONFIG}\n"
        "        ttl 1\n    }\n    cache 1\n}\n"
    )
    start("coredns", BIN / "coredns", "-conf", STATE / "Corefile")


# -- nodes


def folder(number: int) -> Path:
    return STATE / f"node{number}"


def network(number: int) -> None:
    space, link = f"s4n{number}", f"s4v{number}"
    if re.search(rf"^{space}\b", sh("ip", "netns", "list"), re.MULTILINE):
        return
    sh("ip", "netns", "add", space)
    sh("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
    sh("ip", "link", "set", link, "master", BRIDGE, "up")
    sh("ip", "-n", space, "link", "set", "lo", "up")
    sh("ip", "-n", space, "link", "set", "eth0", "up")
    for one in FAMILIES:
        address = f"{one.node(number)}/{one.bits}"
        sh("ip", "-n", space, "addr", "add", address, "dev", "eth0", *NODAD[one.version])
        sh("ip", "-n", space, "route", "add", "default", "via", one.host)
        sh("ip", "route", "replace", one.pods_of(number), "via", one.node(number))
    sh(
        "nsenter",
        f"--net=/run/netns/{space}",
        "sysctl",
        "-qw",
        *FORWARD,
        "net.ipv4.conf.all.route_localnet=1",
    )


def configure(number: int) -> None:
    here, name = folder(number), f"node{number}"
    for part in ("containerd", "kubelet", "cni", "run", "disks", "logs"):
        (here / part).mkdir(parents=True, exist_ok=True)
    ipam = {
        "type": "host-local",
        "dataDir": str(here / "ipam"),
        "ranges": [[{"subnet": one.pods_of(number)}] for one in FAMILIES],
        "routes": [{"dst": one.everywhere} for one in FAMILIES],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True, "ipam": ipam}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    (here / "cni" / "10-s4.conflist").write_text(
        json.dumps({"cniVersion": "0.4.0", "name": "s4", "plugins": [bridge, ports]})
    )
    (here / "containerd.toml").write_text(f"""version = 2
root = "{here}/containerd"
state = "{here}/run/containerd"
[grpc]
  address = "{here}/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{here}/cni"
""")
    (here / "resolv.conf").write_text(f"nameserver {HOST}\n")
    (here / "kubelet.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "address": FAMILIES[0].node(number),
                "authentication": {
                    "anonymous": {"enabled": False},
                    "webhook": {"enabled": True},
                    "x509": {"clientCAFile": f"{STATE}/pki/ca.crt"},
                },
                "authorization": {"mode": "Webhook"},
                "cgroupDriver": "cgroupfs",
                "cgroupRoot": f"/{CGROUP}/{name}",
                "cgroupsPerQOS": True,
                "enforceNodeAllocatable": [],
                "containerRuntimeEndpoint": f"unix://{here}/run/containerd.sock",
                "clusterDNS": [HOST],
                "clusterDomain": "cluster.local",
                "failSwapOn": False,
                "failCgroupV1": False,
                "nodeStatusUpdateFrequency": "4s",
                "syncFrequency": "10s",
                "imageGCHighThresholdPercent": 100,
                "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
                "resolvConf": str(here / "resolv.conf"),
                "podLogsDir": str(here / "logs"),
                "configMapAndSecretChangeDetectionStrategy": "Watch",
            }
        )
    )


def cgroups(number: int) -> None:
    for controller in CONTROLLERS:
        root = Path("/sys/fs/cgroup") / controller
        if not root.is_dir():
            continue
        for path in (root / CGROUP, root / CGROUP / f"node{number}"):
            path.mkdir(exist_ok=True)
            if controller == "cpuset":
                for part in ("cpuset.cpus", "cpuset.mems"):
                    (path / part).write_text((root / part).read_text())
        if controller == "cpu":  # all pods of six machines had as much of a busy machine as one process beside them
            (root / CGROUP / "cpu.shares").write_text(str(WEIGHT))


def node_start(number: int) -> None:
    here, name, space = folder(number), f"node{number}", f"--net=/run/netns/s4n{number}"
    network(number)
    configure(number)
    cgroups(number)
    if not (STATE / "pki" / f"{name}.crt").exists():
        certificate(
            name,
            f"system:node:{name}",
            "system:nodes",
            ",".join([f"DNS:{name}", *(f"IP:{one.node(number)}" for one in FAMILIES)]),
        )
        kubeconfig(name, here / "kubelet.conf")
    socket = here / "run" / "containerd.sock"
    start(f"{name}-containerd", "nsenter", space, "containerd", "-c", here / "containerd.toml")
    wait(
        f"containerd of {name}", 30, lambda: "Server:" in sh("ctr", "-a", socket, "version", check=False)
    )  # of its own it tells without one
    sh("ctr", "-a", socket, "-n", "k8s.io", "images", "import", BIN / "pause.tar")
    pki = STATE / "pki"
    start(
        f"{name}-kubelet",
        "nsenter",
        space,
        BIN / "kubelet",
        f"--config={here}/kubelet.yaml",
        f"--kubeconfig={here}/kubelet.conf",
        f"--root-dir={here}/kubelet",
        f"--hostname-override={name}",
        f"--node-ip={','.join(one.node(number) for one in FAMILIES)}",
        f"--cert-dir={here}/kubelet/pki",
        f"--tls-cert-file={pki}/{name}.crt",
        f"--tls-private-key-file={pki}/{name}.key",
        f"--node-labels=topology.kubernetes.io/zone={zone(number)}",
    )
    start(
        f"{name}-proxy",
        "nsenter",
        space,
        BIN / "kube-proxy",
        f"--kubeconfig={STATE}/proxy.conf",
        f"--hostname-override={name}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={','.join(one.pods for one in FAMILIES)}",
        f"--bind-address={FAMILIES[0].node(number)}",
        "--conntrack-max-per-core=0",
        "--metrics-bind-address=",
        "--healthz-bind-address=",
    )


def unmount(under: Path) -> None:
    for mount in sorted((line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()), reverse=True):
        if mount.startswith(f"{under}/"):
            sh("umount", "-l", mount, check=False)


def node_kill(number: int) -> None:
    """As if its power was cut: kubelet, containerd, and every process of its pods."""
    here, name = folder(number), f"node{number}"
    for part in ("kubelet", "proxy", "containerd"):
        stop(f"{name}-{part}")
    for _ in range(3):  # what a dying process had just started too
        listed = [
            path.read_text().split() for path in Path("/sys/fs/cgroup").glob(f"*/{CGROUP}/{name}/**/cgroup.procs")
        ]
        pids = {int(pid) for one in listed for pid in one}
        pids |= {
            int(pid) for pid in sh("pgrep", "-f", "--", f"-address {here}/run/containerd.sock", check=False).split()
        }
        kill(pids)
        time.sleep(0.2)
    unmount(here / "run")
    unmount(here / "kubelet")
    for line in sh("ip", "netns", "list").splitlines():
        space = line.split()[0]
        if space.startswith("cni-") and not sh("ip", "netns", "pids", space, check=False).strip():
            sh("ip", "netns", "delete", space, check=False)
    shutil.rmtree(here / "run", ignore_errors=True)


def numbers() -> list[int]:
    return sorted(int(path.name[4:]) for path in STATE.glob("node[0-9]*"))


def up(count: int) -> None:
    if KUBECONFIG.exists():
        raise SystemExit("a cluster is up already: take it down first")
    control_plane()
    kubectl(
        "create", "clusterrolebinding", "s4-e2e-proxy", "--clusterrole=system:node-proxier", "--user=system:kube-proxy"
    )
    for number in range(1, count + 1):
        node_start(number)
    wait("every node", 180, lambda: kubectl("get", "nodes", "--no-headers", check=False).count(" Ready ") == count)


def down() -> None:
    for number in numbers():
        node_kill(number)
        sh("ip", "netns", "delete", f"s4n{number}", check=False)
        sh("ip", "link", "delete", f"s4v{number}", check=False)
    for name in ("coredns", "scheduler", "controllers", "apiserver", "etcd"):
        stop(name)
    sh("ip", "link", "delete", BRIDGE, check=False)
    unmount(STATE)
    for path in sorted(Path("/sys/fs/cgroup").glob(f"*/{CGROUP}/**/"), reverse=True):
        sh("rmdir", path, check=False)
    shutil.rmtree(STATE, ignore_errors=True)


def load(archive: str) -> None:
    for number in numbers():
        sh("ctr", "-a", folder(number) / "run" / "containerd.sock", "-n", "k8s.io", "images", "import", archive)


def tag(old: str, new: str) -> None:
    for number in numbers():
        sh(
            "ctr",
            "-a",
            folder(number) / "run" / "containerd.sock",
            "-n",
            "k8s.io",
            "images",
            "tag",
            "--force",
            old,
            new,
        )


def copy(source: str, target: str, *images: str) -> None:
    """Images of a node for another one."""
    archive = STATE / "copied.tar"
    sh(
        "ctr",
        "-a",
        folder(int(source)) / "run" / "containerd.sock",
        "-n",
        "k8s.io",
        "images",
        "export",
        archive,
        *images,
    )
    sh("ctr", "-a", folder(int(target)) / "run" / "containerd.sock", "-n", "k8s.io", "images", "import", archive)
    archive.unlink()


def wipe(number: int) -> None:
    """Other disks, empty, in the places of those that there were."""
    for disk in (folder(number) / "disks").iterdir():
        shutil.rmtree(disk)
        disk.mkdir()


ACTIONS: dict[str, Callable[..., None]] = {
    "up": lambda count="6": up(int(count)),
    "down": down,
    "load": load,
    "tag": tag,
    "copy": copy,
    "kill": lambda number: node_kill(int(number)),
    "start": lambda number: node_start(int(number)),
    "wipe": lambda number: wipe(int(number)),
    "cut": lambda number: sh("ip", "link", "set", f"s4v{number}", "down") and None,
    "join": lambda number: sh("ip", "link", "set", f"s4v{number}", "up") and None,
    "stop-api": lambda: stop("apiserver"),
    "start-api": start_api,
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ACTIONS:
        raise SystemExit(__doc__)
    ACTIONS[sys.argv[1]](*sys.argv[2:])
