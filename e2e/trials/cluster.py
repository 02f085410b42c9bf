"""An admin of a cluster: machines are namespaces with names, each with its own folder, and an etcd that asks for TLS
and a login.

Three nodes of 2+1 (a laptop's two cores have to do), then a fourth; what the text says of six is the same. The steps
are those of docs/cluster.md, with the mistakes that people make on the way.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from cluster.etcd_process import program
from cluster.test_coordinator import ask_for_logins
from faults.network import Network, missing
from s4.cluster.etcd import Access
from s4_operator import certificates
from trials.log import Machine, Started, Trial, clean_environment
from trials.texts import Texts, filled

NODES = ("node-1", "node-2", "node-3")
NAMES = ("desk", "etcd-1", *NODES, "node-4", "gateway-1", "gateway-2")
ETCD = "--etcd-authority etcd-ca.pem --etcd-login login"
OLD = ("ofmychoice", "of my choice too")
S4 = f"{sys.executable} -m s4.cli"
PUT = """import boto3, sys
from botocore.config import Config
where, access, secret, key = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=where, aws_access_key_id=access, aws_secret_access_key=secret, region_name="us-east-1", config=Config(retries={"max_attempts": 0}))
try:
    s3.create_bucket(Bucket="first")
    s3.put_object(Bucket="first", Key=key, Body=key.encode() * 9000)
    assert all(s3.get_object(Bucket="first", Key=one["Key"])["Body"].read() == one["Key"].encode() * 9000 for one in s3.list_objects_v2(Bucket="first")["Contents"])
    print("put, and all got back")
except Exception as error:
    print("refused:", error)
"""


class Machines:
    """A folder and a terminal for each; `keys` are the root keys that a new terminal exports."""

    def __init__(self, trial: Trial, network: Network, here: Path, texts: Texts) -> None:
        self.trial, self.network, self.texts = trial, network, texts
        self.keys = OLD
        self.machines: dict[str, Machine] = {}
        self.running: dict[str, Started] = {}
        bin_folder = here / "bin"
        bin_folder.mkdir(parents=True)
        (bin_folder / "s4").write_text(f'#!/bin/sh\nexec {S4} "$@"\n')
        (bin_folder / "s4").chmod(0o755)
        (here / "put.py").write_text(PUT)
        for name in NAMES:
            (here / name).mkdir()
            environment = clean_environment(
                {"PATH": f"{bin_folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
            )
            self.machines[name] = Machine(
                name, here / name, environment, ["ip", "netns", "exec", network.namespace[name]]
            )

    def _exported(self) -> str:
        line = self.texts.line("export S4_ROOT_ACCESS_KEY")
        assert line == "export S4_ROOT_ACCESS_KEY=… S4_ROOT_SECRET_KEY=…", line
        return f"export S4_ROOT_ACCESS_KEY='{self.keys[0]}' S4_ROOT_SECRET_KEY='{self.keys[1]}'; "

    def does(self, machine: str, line: str, expected: str, **options: object) -> str:
        one = self.machines[machine]
        one.environment.update(S4_ROOT_ACCESS_KEY=self.keys[0], S4_ROOT_SECRET_KEY=self.keys[1])
        return self.trial.does(one, line, expected, **options)  # type: ignore[arg-type]

    def bring(self, *names: str, to: str = "") -> None:
        """Files of the desk to their machines, as `scp` would."""
        desk = self.machines["desk"].here
        for name in names:
            for file in ("ca.pem", f"{name}.pem", f"{name}.key"):
                if (desk / "trust" / file).exists():
                    shutil.copy(desk / "trust" / file, self.machines[name].here / file)
            for file in ("master.key", "etcd-ca.pem", "login"):
                if (desk / file).exists():
                    shutil.copy(desk / file, self.machines[name].here / file)

    def command(self, name: str) -> str:
        """The text's line for a node or a gateway, with this one's names."""
        kind = "s4 gateway" if name.startswith("gateway") else "s4 node /mnt/disk"
        values = [
            ("etcd://…/prod", "etcd://etcd-1:2379/prod"),
            ("/mnt/disk", "disk"),
            ("node-1", name),
            ("rack-1", f"rack-of-{name}"),
            ("gateway-1", name),
        ]
        if kind == "s4 gateway":
            values = [values[0], values[-1]]
        return f"{filled(self.texts.line(kind), values)} {ETCD}" + (
            " --reserve 64MiB" if "node" in name else " --admin-listen :9001"
        )

    def start(self, name: str, expected: str, more: str = "", line: str = "", what: str = "") -> None:
        one = self.machines[name]
        one.environment.update(S4_ROOT_ACCESS_KEY=self.keys[0], S4_ROOT_SECRET_KEY=self.keys[1])
        self.running[name] = one.start(f"{line or self.command(name)} {more}", f"{name}-{len(one.started)}")
        self.trial.sees(self.running[name], what or f"{name}: {line or self.command(name)} {more}".strip(), expected)

    def again(self, *names: str) -> None:
        for name in names:
            self.running[name].end()
            self.start(name, " serves ", what=f"{name}: stopped and started")

    def at(self, action: str, node: str = "node-1") -> str:
        line = self.texts.line("s4 admin --endpoint node-1:9001 --authority ca.pem cluster status")
        return line.replace("node-1:", f"{node}:").replace("ca.pem", "trust/ca.pem").replace("cluster status", action)

    def put(
        self, expected: str, key: str, where: str = "gateway-1", keys: tuple[str, str] | None = None, **options: object
    ) -> None:
        access, secret = keys or self.keys
        self.does("desk", f"python ../put.py http://{where}:9000 '{access}' '{secret}' {key}", expected, **options)

    def well(self, within_s: float = 180) -> None:
        self.does("desk", self.at("cluster status"), r"^health +ok", within_s=within_s)

    def end(self) -> None:
        for one in self.machines.values():
            one.end()


def start_etcd(machines: Machines) -> Started:
    one, address = machines.machines["etcd-1"], machines.network.address["etcd-1"]
    line = (
        f"{program()} --name e --data-dir etcd --listen-client-urls https://{address}:2379 --advertise-client-urls https://etcd-1:2379 --listen-peer-urls http://127.0.0.1:2380 "
        "--initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster e=http://127.0.0.1:2380 --cert-file etcd.pem --key-file etcd.key"
    )
    made = one.start(line, f"etcd-{len(one.started)}")
    machines.trial.sees(made, "etcd with TLS", "serving client requests")
    return made


def follow(here: Path, texts: Texts) -> Trial:
    trial = Trial("An admin of a cluster")
    if program() is None or missing():
        trial.notes.append(f"Not run: {missing() or 'no etcd on this machine'}.")
        return trial
    with ExitStack() as stack:
        network = stack.enter_context(Network(list(NAMES)))
        for namespace in network.namespace.values():
            folder = Path("/etc/netns") / namespace
            folder.mkdir(parents=True)
            stack.callback(shutil.rmtree, folder)
            (folder / "hosts").write_text(
                "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in network.address.items())
            )
        machines = Machines(trial, network, here, texts)
        stack.callback(machines.end)
        for part in (before, forming, growing, losing, trusting, changing_root_keys, upgrading, without_etcd):
            part(machines)
        for name in list(machines.running):
            machines.running[name].end()
    return trial


def before(m: Machines) -> None:
    """The authority, the map; an etcd that is not there, wants TLS, wants a login."""
    desk = m.machines["desk"].here
    texts = m.texts
    certificate = texts.line("s4 admin cluster certificates ./trust node-1").replace("…", "node-3")
    m.does("desk", certificate, "ca.pem|authority")
    m.does("desk", certificate, ".", status=(0, 1))
    m.does("desk", "ls -l trust/ca.key", "-rw-------")
    init = texts.line("s4 admin cluster init").replace("etcd-1:2379,etcd-2:2379", "etcd-1:2379").replace("4+2", "2+1")
    m.does("desk", init, "etcd-1:2379", status=1)
    authority = certificates.make("etcd's", time.time(), 86_400)
    own = certificates.make("etcd-1", time.time(), 86_400, ["etcd-1", m.network.address["etcd-1"]], authority)
    etcd = m.machines["etcd-1"].here
    for name, text in (("etcd.pem", own.certificate), ("etcd.key", own.key)):
        (etcd / name).write_text(text)
    for name, text in (
        ("etcd-ca.pem", authority.certificate),
        ("login", "s4:a secret: with a colon\n"),
        ("wrong-login", "s4:wrong\n"),
    ):
        (desk / name).write_text(text)
    start_etcd(m)
    asyncio.run(ask_for_logins(f"{m.network.address['etcd-1']}:2379", Access(str(desk / "etcd-ca.pem")), b"/s4/prod/"))
    m.does("desk", init, "(?i)tls|etcd-authority|does not answer", status=1)
    m.does("desk", f"{init} --etcd-authority trust/ca.pem", "(?i)certificate|tls|authority", status=1)
    m.does("desk", f"{init} --etcd-authority etcd-ca.pem", "(?i)login|user name|permission", status=1)
    m.does(
        "desk",
        f"{init} --etcd-authority etcd-ca.pem --etcd-login wrong-login",
        "(?i)login|password|authentication",
        status=1,
    )
    m.does("desk", f"{init} --etcd-authority etcd-ca.pem --etcd-login logni", "logni", status=(1, 2))
    m.does("desk", f"{init.replace('2+1', '2-1')} {ETCD}", "(?i)erasure|2-1", status=(1, 2))
    m.does("desk", f"{init} {ETCD}", "^cluster: ")
    m.does("desk", f"{init} {ETCD}", "(?i)there|exists|already", status=1)
    m.does("desk", texts.line("(umask 077; head -c 32"), "", quiet=True)
    m.does("desk", "ls -l master.key", "^-rw-------")
    m.bring(*NODES, "gateway-1")


def forming(m: Machines) -> None:
    """Nodes that are told the wrong things, then the right ones."""
    node = m.command("node-1")
    m.start("node-1", "etcd refuses.*/s4/prdo/", line=node.replace("/prod", "/prdo"))
    m.start("node-1", "give --authority", line=node.replace("--authority ca.pem ", ""))
    m.start("node-1", "no-such.pem", line=node.replace("--authority ca.pem", "--authority no-such.pem"))
    m.start("node-1", "(?i)--coordinator", line=node.replace("--coordinator", "--cordinator"))
    m.start("node-1", "(?i)key", line=node.replace("--peer-key node-1.key", "--peer-key master.key"))
    m.keys = ("", "")
    m.start("node-1", "S4_ROOT_ACCESS_KEY")
    m.keys = OLD
    m.does("desk", "s4 admin --endpoint node-1:9001 --authority trust/ca.pem cluster status", "node-1:9001", status=1)
    for name in NODES:
        m.start(name, r"\(standby\) serves")
    m.does(
        "node-1",
        f"{m.command('node-1')} --listen :9100 --admin-listen :9101 --peer-listen :9102",
        "in use by another s4",
        status=(1, 2, 3),
    )
    m.does("desk", m.at("cluster status"), "`s4 admin cluster add`", status=(0, 3))
    m.does("desk", "s4 admin --endpoint node-1:9001 cluster status", "(?i)--authority|tls|certificate", status=1)
    m.does("desk", m.at("cluster status").replace("9001", "9000"), "9000", status=1)
    m.does("desk", m.at("cluster status").replace("9001", "9002"), "9002", status=1)
    m.does("desk", m.at("cluster status").replace("node-1", "nodee-1"), "nodee-1", status=1)
    m.does("desk", f"S4_ROOT_SECRET_KEY=wrong {m.at('cluster status')}", "(?i)signature|secret", status=1)
    m.does("desk", f"S4_ROOT_ACCESS_KEY=wrong {m.at('cluster status')}", "(?i)access key|no stores yet", status=1)
    m.does("desk", m.at("cluster add nod-1"), "nod-1", status=1)
    m.does("desk", m.at("cluster ad"), "add", status=2)
    m.does("desk", m.at("cluster add"), "positions are to move")
    m.start("gateway-1", "gateway serves")
    m.well()
    m.put("put, and all got back", "one")
    m.put("put, and all got back", "two", where="node-2")


def growing(m: Machines) -> None:
    """A fourth node, without and with a certificate, at a wrong and the right address; then one is drained."""
    m.bring("node-4")
    m.start("node-4", "node-4.pem", what="node-4, to which nobody brought its certificate")
    m.does(
        "desk",
        m.texts.said("s4 admin cluster certificates", "cluster certificates ./trust node-8") + " ./trust node-4",
        "node-4",
    )
    m.bring("node-4")
    m.start(
        "node-4",
        r"\(standby\) serves",
        line=m.command("node-4").replace("--advertise node-4:9002", "--advertise node-4:9003"),
    )
    m.does("desk", m.at("cluster add node-4"), "node-4 does not answer at node-4:9003", status=1)
    m.running["node-4"].end()
    m.start("node-4", r"\(standby\) serves")
    m.does("desk", m.at("cluster add node-4"), "positions are to move")
    m.well()
    m.does("desk", m.at("cluster rebalance"), ".")
    m.does("desk", m.at("cluster drain node-9"), "node-9", status=1)
    m.texts.said("cluster drain node-7")
    m.does("desk", m.at("cluster drain node-2"), "positions are to move")
    m.does("desk", m.at("cluster status"), r"node-2 .* draining +.*", status=(0, 3, 4))
    m.does(
        "desk",
        m.at("--json cluster status")
        + " | python -c \"import json,sys; print([(s['node'], s['positions'], s.get('copies')) for s in json.load(sys.stdin)['stores']])\"",
        r"'node-2', 0, 0",
        within_s=240,
    )
    m.running["node-2"].end()
    m.does("desk", m.at("cluster status"), r"node-2", status=(0, 3, 4))
    m.put("put, and all got back", "three")
    m.does("desk", m.at("cluster remove node-2"), "gone for good: node-2")
    m.well()


def losing(m: Machines) -> None:
    """Power off, a disk wiped, one store lost for good."""
    m.trial.note("node-3 loses its power")
    m.running["node-3"].end(9)
    m.does("desk", m.at("cluster status"), "node-3.*(away|down|does not answer)", status=(3, 4), within_s=60)
    m.put("put, and all got back|refused", "four", within_s=20)
    m.start("node-3", r" serves ", what="node-3: started again")
    m.well()
    m.trial.note("node-3 loses its disk")
    m.running["node-3"].end(9)
    shutil.rmtree(m.machines["node-3"].here / "disk")
    m.start("node-3", r"\(standby\) serves", what="node-3: started on an empty disk")
    m.does("desk", m.at("cluster status"), "replace", status=(3, 4), within_s=30)
    m.texts.said("s4 admin cluster replace node-3")
    m.does("desk", m.at("cluster replace node-33"), "node-33", status=1)
    m.does("desk", m.at("cluster replace node-3"), "positions are to move")
    m.well()
    m.put("put, and all got back", "five")


def trusting(m: Machines) -> None:
    m.texts.said("cluster certificates ./trust --renew", "--replace-authority", "--forget-authority")
    inside = ("node-1", "node-3", "node-4", "gateway-1")
    for how in ("--renew", "--replace-authority", "--renew", "--forget-authority"):
        m.does("desk", f"s4 admin cluster certificates ./trust {how}", ".")
        m.bring(*inside)
        time.sleep(6)  # each looks at its files every five seconds (peer/trust.py)
        m.does("node-3", f"cat {m.running['node-3'].log.name}", "loaded again")
        m.well(60)
    m.again(*inside)
    m.well()
    m.put("put, and all got back", "six")
    m.does("desk", "s4 admin cluster certificates ./trsut --renew", "trsut", status=1)


def changing_root_keys(m: Machines) -> None:
    """New ones in the environment without the command; then with it, from the first step to the last."""
    m.texts.said("s4 admin root-keys change", "s4 admin root-keys finish")
    m.trial.note("gateway-1 is started with new root keys of somebody's choice, and nothing else is done")
    new = ("another", "another secret")
    m.running["gateway-1"].end()
    m.keys = new
    m.start("gateway-1", "gateway serves")
    m.put("refused.*(ServiceUnavailable|503)", "seven", within_s=60)
    m.does("desk", m.at("status", "gateway-1"), "serves nobody|root keys are not", status=(1, 3, 4))
    m.does("gateway-1", f"cat {m.running['gateway-1'].log.name}", "root keys are not this cluster's")
    m.keys = OLD
    m.put("put, and all got back", "eight", where="node-1")
    m.again("gateway-1")
    m.does("desk", m.at("root-keys finish"), "No change of the root keys is under way", status=1)
    said = m.does("desk", m.at("root-keys change"), "root access key: .*root secret key: ")
    pair = [line.rpartition(": ")[2] for line in said.splitlines() if line.startswith("root ")]
    if len(pair) != 2:
        return
    m.does("desk", m.at("root-keys change"), "under way", status=1)
    m.put("put, and all got back", "nine", within_s=30)
    m.put("put, and all got back", "ten", keys=(pair[0], pair[1]), within_s=30)
    m.does("desk", m.at("root-keys finish"), "(?i)new root keys", status=1)
    m.keys = (pair[0], pair[1])
    m.again("node-1", "node-3", "node-4", "gateway-1")
    m.put("put, and all got back", "eleven", keys=OLD, within_s=30)
    m.does("desk", m.at("root-keys finish"), "is the only root key now")
    m.put("refused.*InvalidAccessKeyId", "twelve", keys=OLD, within_s=30)
    m.put("put, and all got back", "thirteen")
    m.well()


def upgrading(m: Machines) -> None:
    m.texts.said("cluster freeze on", "cluster stop-check NODE", "cluster freeze off")
    m.does("desk", m.at("cluster freeze on"), "(?i)planned moves wait")
    m.does("desk", m.at("cluster status"), "(?i)frozen|freeze", status=(0, 4))
    m.does("desk", m.at("cluster stop-check node-1 node-3 node-4"), "(?i)no|not", status=(1, 3, 4))
    for name in ("node-1", "node-3", "node-4"):
        other = "node-3" if name == "node-1" else "node-1"
        m.does("desk", m.at(f"cluster stop-check {name}", other), ".", within_s=60)
        m.again(name)
    m.does("desk", m.at("cluster freeze off"), ".")
    m.well()


def without_etcd(m: Machines) -> None:
    m.trial.note("etcd is stopped, then started")
    etcd = m.machines["etcd-1"].started[-1]
    etcd.end()
    m.does("desk", m.at("cluster status"), "(?i)coordinator|etcd", status=(3, 4), within_s=60)
    m.put("put, and all got back", "fourteen")
    start_etcd(m)
    m.well()
    m.trial.note("All are stopped at once, and started")
    names = ("node-1", "node-3", "node-4", "gateway-1")
    for name in names:
        m.running[name].end(9)
    for name in names:
        m.start(name, " serves ", what=f"{name}: started again")
    m.well()
    m.put("put, and all got back", "fifteen")
    subprocess.run(["true"], check=True)
