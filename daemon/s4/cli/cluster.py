"""The command line of clusters: options of `s4 node`, `s4 gateway` and `s4 dev`, and `s4 admin cluster`."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from s4 import __version__
from s4.base.said import SaidError, count, number, of_option, words
from s4.base.text import human, table
from s4.cli import target
from s4.cli.admin_client import AdminError, Call

if TYPE_CHECKING:
    from s4.server.cluster import ClusterServer, ClusterSettings, EtcdFiles

Option = Callable[..., None]
EXIT_PROBLEMS, EXIT_DEGRADED = 3, 4
COPIES = "copies of each partition's metadata: K+M at most, and three and M+1 at least"
PARTITIONS, DEV_PARTITIONS = "256", "32"


ETCD = {
    "--etcd-authority": "the authority of etcd's certificate (PEM): speak TLS with etcd",
    "--etcd-certificate": "a certificate of this process for etcd (PEM), where it asks for one",
    "--etcd-key": "key of that certificate (PEM)",
    "--etcd-login": "a file with a line USER:PASSWORD, where etcd asks for a login",
}


def etcd_files(arguments: argparse.Namespace) -> EtcdFiles:
    """How etcd is reached, as `cluster_arguments` were given."""
    from s4.server.cluster import EtcdFiles  # noqa: PLC0415

    given = (getattr(arguments, name[2:].replace("-", "_")) for name in ETCD)
    return EtcdFiles(*(str(Path(path).absolute()) if path else "" for path in given))


def cluster_arguments(option: Option, parser: argparse.ArgumentParser, *, store: bool) -> None:
    """What a node (`store`) or a gateway is told of its cluster."""
    option(
        "--coordinator",
        "",
        "where the cluster's map is, and the cluster's name",
        metavar="etcd://HOST:PORT,…/NAME|kubernetes://NAMESPACE/NAME",
    )
    for name, text in ETCD.items():
        option(name, "", text, metavar="FILE")
    option("--authority", "", "certificate of the cluster's authority (PEM)", metavar="FILE")
    option("--peer-certificate", "", "certificate of this process, for its peers (PEM)", metavar="FILE")
    option("--peer-key", "", "key of that certificate (PEM)", metavar="FILE")
    if not store:
        text = "processes that serve S3 beside this one, on its port; 0 is this one alone"
        option("--workers", "0", text, metavar="N")
        return
    parser.add_argument("directory", metavar="DIR", help="the store's directory, on a disk of its own")
    option("--name", os.uname().nodename, "what people call this node", metavar="NAME")
    option("--peer-listen", "0.0.0.0:9002", "address for peers", metavar="HOST:PORT")
    option("--advertise", "", "where peers reach that; default NAME and its port", metavar="HOST:PORT")
    option("--zone", "", "what fails together with this node; default its name", metavar="NAME")
    option("--durability", "sync", "sync, and nothing else in a cluster", metavar="sync")
    option("--weight", "1", "this store's share of the data relative to others", metavar="NUMBER")


def cluster_settings(arguments: argparse.Namespace, common: dict[str, Any]) -> ClusterSettings:
    """Raises ValueError that says what to change."""
    from s4.config.listening import parse_address  # noqa: PLC0415
    from s4.server.cluster import ClusterSettings, check_coordinator  # noqa: PLC0415

    check_coordinator(arguments.coordinator)
    named = {"--authority": "authority", "--peer-certificate": "peer_certificate", "--peer-key": "peer_key"}
    for name, field in named.items():
        if not getattr(arguments, field):
            raise ValueError(
                f"give {name}: peers trust only certificates of the cluster's authority, "
                "which `s4 admin cluster certificates` makes"
            )
    files: dict[str, Any] = {field: str(Path(getattr(arguments, field)).absolute()) for field in named.values()}
    scale = number(os.environ.get("S4_TIMING_SCALE", "1"), "S4_TIMING_SCALE", 0.01, 1000)
    if arguments.command == "gateway":
        return ClusterSettings(
            directories=[],
            coordinator=arguments.coordinator,
            timing_scale=scale,
            etcd=etcd_files(arguments),
            workers=count(arguments.workers, "--workers", 0, 64),
            **files,
            **common,
        )
    if arguments.durability != "sync":
        raise ValueError(
            f"--durability {arguments.durability}: a node's is sync. One that lost with its power what it acknowledged "
            "could lead, and have the good copies made like its own (R2); interval and none are for `s4 server`"
        )
    _, port = of_option("--peer-listen", parse_address, arguments.peer_listen)
    advertise = arguments.advertise or f"{arguments.name}:{port}"
    of_option("--advertise", parse_address, advertise)
    weight = number(arguments.weight, "--weight", 1e-6, 1e6)
    return ClusterSettings(
        directories=[str(Path(arguments.directory).absolute())],
        coordinator=arguments.coordinator,
        name=arguments.name,
        peer_listen=arguments.peer_listen,
        advertise=advertise,
        zone=arguments.zone,
        weight=weight,
        timing_scale=scale,
        etcd=etcd_files(arguments),
        **files,
        **common,
    )


async def announce(server: ClusterServer) -> None:
    settings = server.settings
    s3, admin = target.urls(server.endpoint, server.admin_endpoint, settings.certificate, settings.authority)
    target.write([Path(one) for one in settings.directories], s3, admin, settings.authority)
    where = f"S3 at {s3}, admin at {admin}"
    if server.member is None:
        sys.stdout.write(f"S4 {__version__} gateway serves {where}\n")
    else:
        store = server.member.node.store
        state = server.member.keeper.current.stores[store].state
        sys.stdout.write(f"S4 {__version__} store {store} ({state}) serves {where}\n")
    sys.stdout.flush()


# -- s4 dev


def dev_arguments(commands: Any) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    dev = commands.add_parser(
        "dev",
        help="a whole cluster on this machine, to try and to test",
        formatter_class=raw,
        description=(
            "Start a cluster on this machine: an etcd, and a process for each node. Says ids and endpoints as JSON lines.\n"
            "`s4 dev DIR kill|stop|start|wipe NODE`, from another terminal, acts on a node of it (node-1, node-2, …);\n"
            "`wipe` kills it, empties its disk, starts it again and has the cluster fill it. `s4 dev DIR status` lists them.\n"
            "etcd comes from S4_ETCD or the PATH."
        ),
    )
    dev.add_argument("directory", metavar="DIR", help="where everything is kept; started again, it goes on as it was")
    dev.add_argument("act", nargs="?", choices=("kill", "stop", "start", "wipe", "status"), help="what to do to a node")
    dev.add_argument("node", nargs="?", metavar="NODE")
    dev.add_argument("--nodes", type=int, default=6, metavar="N", help="nodes [6]")
    dev.add_argument("--gateways", type=int, default=0, metavar="N", help="gateways beside the nodes [0]")
    dev.add_argument("--erasure", default="4+2", metavar="K+M", help="data and parity shards [4+2]")
    dev.add_argument(
        "--partitions", type=int, default=int(DEV_PARTITIONS), metavar="N", help=f"partitions [{DEV_PARTITIONS}]"
    )
    dev.add_argument(
        "--listen",
        default="127.0.0.1:9000",
        metavar="HOST:PORT",
        help="S3 of the first node; others follow [127.0.0.1:9000]",
    )
    dev.add_argument(
        "--reserve", default="1GiB", metavar="SIZE", help="free disk below which a node takes no data [1GiB]"
    )


def dev_act(directory: Path, act: str, node: str) -> int:
    """Tell the cluster that `s4 dev` runs there to do something, and print what it says."""
    try:
        with socket.socket(socket.AF_UNIX) as talk:
            talk.connect(str(directory / "dev.sock"))
            talk.sendall(json.dumps([act, node]).encode() + b"\n")
            answer = talk.makefile().read()
    except OSError as error:
        sys.stderr.write(f"s4 dev: no cluster runs in {directory}: {words(error)}\n")
        return 1
    sys.stdout.write(answer)
    return 1 if '"error"' in answer else 0


# -- s4 admin cluster


def admin_arguments(actions: Any) -> None:
    cluster = actions.add_parser("cluster", help="make a cluster, and change which stores it has")
    todo = cluster.add_subparsers(dest="cluster_action", required=True, metavar="ACTION")
    _init_arguments(todo)
    certificates = todo.add_parser(
        "certificates",
        help="an authority and certificates for a cluster's processes",
        description="Give certificates to NAMEs by the authority of DIR, which is made where there is none. Its key is kept there, as "
        "DIR/ca.key: keep DIR safe. Nothing is overwritten. To replace the authority: --replace-authority, bring DIR/ca.pem to all "
        "machines; --renew, bring each its certificate and key; --forget-authority, and ca.pem once more. A running process takes "
        "what is new within seconds; what is forgotten it trusts until it starts again.",
    )
    certificates.add_argument("directory", metavar="DIR")
    certificates.add_argument(
        "names", nargs="*", metavar="NAME", help="of nodes and gateways: one that begins with gateway is for no node"
    )
    how = certificates.add_mutually_exclusive_group()
    how.add_argument("--renew", nargs="*", metavar="NAME", help="make certificates again, where none is named of all")
    how.add_argument("--replace-authority", action="store_true", help="make another authority, trusted beside this one")
    how.add_argument("--forget-authority", action="store_true", help="trust the new authority only")
    todo.add_parser("status", help="how the cluster is, store by store")
    add = todo.add_parser("add", help="use stores that stand by, or that were to be drained")
    add.add_argument("stores", nargs="*", metavar="STORE", help="node name, id or its beginning; all that stand by")
    for name, text in (
        (
            "drain",
            "move shards, copies of metadata and leads away from stores; they may stop once they hold 0 positions and 0 copies",
        ),
        ("remove", "stores are lost for good: have others make their shards again"),
        ("stop-check", "may these nodes be stopped together now?"),
    ):
        todo.add_parser(name, help=text).add_argument("stores", nargs="+", metavar="STORE")
    swap = todo.add_parser("replace", help="a store is lost for good, and a new one takes its places")
    swap.add_argument(
        "stores", nargs="+", metavar="STORE", help="the lost one and the new one, or a node whose disk is new"
    )
    recover = todo.add_parser(
        "recover",
        help="make the map again of what stores hold, after it was lost",
        description="The map was lost, and one without stores begun under the old cluster's id (`cluster init --cluster ID`), with which "
        "every node was started again. Makes the map that was. Every store that the old map counted must tell what it holds; one that is "
        "lost for good is named here by its id, and never comes back.",
    )
    recover.add_argument("stores", nargs="*", metavar="STORE", help="ids of stores that are lost for good")
    copies = todo.add_parser("copies", help="have more copies of the metadata of each partition, or fewer")
    copies.add_argument("copies", metavar="N", help=f"{COPIES}; 0 is the least")
    todo.add_parser("rebalance", help="place everything anew for the stores there are")
    freeze = todo.add_parser("freeze", help="stop planned moves, or let them go on")
    freeze.add_argument("state", choices=("on", "off"))


def _init_arguments(todo: Any) -> None:
    init = todo.add_parser("init", help="make a cluster: before its first node starts")
    init.add_argument("--coordinator", required=True, metavar="etcd://HOST:PORT,…/NAME|kubernetes://NAMESPACE/NAME")
    init.add_argument("--erasure", default="4+2", metavar="K+M", help="data and parity shards of every object [4+2]")
    init.add_argument(
        "--partitions", default=PARTITIONS, metavar="N", help=f"a power of two, never to be changed [{PARTITIONS}]"
    )
    init.add_argument("--copies", default="0", metavar="N", help=f"{COPIES} [the least]")
    init.add_argument(
        "--cluster",
        default="",
        metavar="ID",
        help="of a cluster whose map was lost, for `cluster recover` to make it again",
    )
    for name, text in ETCD.items():
        variable = f"S4_{name[2:].replace('-', '_').upper()}"
        init.add_argument(name, default=os.environ.get(variable, ""), metavar="FILE", help=text)


class InitError(SaidError):
    """A cluster could not be made; the message says why."""


def init(
    coordinator: str,
    erasure: str,
    partitions: str,
    etcd: EtcdFiles | None = None,
    cluster: str = "",
    copies: str = "0",
) -> dict[str, Any]:
    """Make a cluster, or begin the map of one that lost it. Raises InitError."""
    import asyncio  # noqa: PLC0415 - half of the start of a command that needs none

    from s4.cluster import clustermap, planner  # noqa: PLC0415
    from s4.cluster.coordinator import ConflictError, CoordinatorError  # noqa: PLC0415
    from s4.cluster.keeper import DOCUMENT  # noqa: PLC0415
    from s4.erasure.codec import ErasureError, parse_geometry  # noqa: PLC0415
    from s4.server.cluster import open_coordinator  # noqa: PLC0415

    async def make() -> dict[str, Any]:
        data, parity = of_option("--erasure", parse_geometry, erasure)
        parts = count(partitions, "--partitions", 1, 4096)
        if cluster and not re.fullmatch(r"[0-9a-f]{32}", cluster):
            raise InitError(f"--cluster {cluster}: the id of a cluster has 32 hexadecimal digits")
        made = planner.new(cluster or os.urandom(16).hex(), data, parity, parts, copies_of("--copies", copies))
        opened = open_coordinator(coordinator, etcd)
        try:
            await opened.check_versions()
            await opened.replace(DOCUMENT, clustermap.encode(made), 0)
        except ConflictError:
            raise InitError(f"there is a cluster at {coordinator} already") from None
        finally:
            await opened.close()
        return {
            "cluster": made.cluster,
            "erasure": f"{data}+{parity}",
            "partitions": made.count,
            "copies": made.replicas,
        }

    try:
        return asyncio.run(make())
    except (CoordinatorError, planner.PlanError, ErasureError, ValueError, OSError) as error:
        raise InitError(str(error)) from error


def certificates(arguments: argparse.Namespace) -> dict[str, Any]:
    """Raises InitError."""
    from s4.crypto.authority import Authority, AuthorityError  # noqa: PLC0415

    directory, names = Path(arguments.directory), arguments.names
    renews = arguments.renew is not None
    changes = renews or arguments.replace_authority or arguments.forget_authority
    try:
        if changes and not (directory / "ca.pem").exists():
            raise AuthorityError(f"there is no authority in {directory}")
        if names and (arguments.replace_authority or arguments.forget_authority):
            raise AuthorityError("an authority is replaced for all: give no names")
        if not names and not changes:
            raise AuthorityError("name the nodes and gateways that need a certificate")
        authority = Authority(directory)
        if arguments.replace_authority:
            authority.replace()
        if arguments.forget_authority:
            authority.forget()
        made = authority.renew(names + arguments.renew) if renews else authority.add(names)
    except (AuthorityError, OSError) as error:
        raise InitError(str(error)) from error
    return {"authority": str(authority.ca), "issued": [str(path) for path in made]}


def local_action(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Actions that need no running node; None for the others. Raises InitError."""
    if arguments.cluster_action == "init":
        return init(
            arguments.coordinator,
            arguments.erasure,
            arguments.partitions,
            etcd_files(arguments),
            arguments.cluster,
            arguments.copies,
        )
    if arguments.cluster_action == "certificates":
        return certificates(arguments)
    return None


# What people are told of what was done, before what follows from it.
_DONE = {
    "add": "taken in: {}; ",
    "drain": "to be drained: {}; ",
    "remove": "gone for good: {}; ",
    "replace": "replaced: {}; ",
    "recover": "the map was made again of what the stores hold; ",
    "copies": "each partition is to have {} copies of its metadata; ",
    "freeze": "planned moves wait until `cluster freeze off`; ",
    "unfreeze": "planned moves go on; ",
}


def remote_action(call: Call, arguments: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
    """(value, text for people, exit status) of the others."""
    action = arguments.cluster_action
    if action == "status":
        value = next(call("GET", "/status"))
        if "stores" not in value:
            raise AdminError("this is `s4 server`, which is no cluster: `s4 admin status` shows how it is")
        return value, status_text(value), status_code(value)
    if action == "stop-check":
        query = urlencode([("store", store) for store in arguments.stores])
        value = next(call("GET", "/cluster/safe-to-stop", query=query))
        text = "yes\n" if value["safe"] else "no:\n" + "".join(f"  {reason}\n" for reason in value["reasons"])
        return value, text, 0 if value["safe"] else 3
    if action == "freeze":
        action = "freeze" if arguments.state == "on" else "unfreeze"
    if action == "copies":
        copies = copies_of("N", arguments.copies)
        value, names = next(call("POST", "/cluster/copies", {"copies": copies})), str(copies or "the least")
    else:
        value = next(call("POST", f"/cluster/{action}", {"stores": getattr(arguments, "stores", [])}))
        names = ", ".join(getattr(arguments, "stores", [])) or "all that stand by"
    how = value.get("why") or "`s4 admin cluster status` shows how far that is"
    done = _DONE.get(action, "").format(names)
    return value, f"{done}{value['moves']} positions are to move; {how}\n", 0


def copies_of(name: str, text: str) -> int:
    """Raises ValueError that names the option or argument."""
    return count(text, name, 0, 16)


def health_word(value: dict[str, Any]) -> str:
    return "ok" if value["health"] == "ok" else str(value["health"]).upper()


def reasons_text(value: dict[str, Any]) -> str:
    reasons = "".join(f"  ! {reason}\n" for reason in value["reasons"])
    return reasons and "\n" + reasons


def status_code(value: dict[str, Any]) -> int:
    """The exit status of `status`: 0 is ok, and nothing else is, so that a script need not read."""
    return {"ok": 0, "degraded": EXIT_DEGRADED}.get(value["health"], EXIT_PROBLEMS)


def storable_text(value: dict[str, Any]) -> str:
    """What can still be stored: a copy of the metadata is filled by small objects sooner than a drive by their
    shards."""
    shards = value.get("storable_bytes", 0)
    rows = value.get("storable_rows_bytes", shards)  # 0.7 does not say it
    more = f", or {human(rows)} of objects so small that they live in rows" if rows < shards else ""
    return f"{human(shards)} can still be stored{more}"


def status_text(value: dict[str, Any]) -> str:
    """The cluster at a glance."""
    lines = [
        ["health", health_word(value)],
        [
            "cluster",
            f"{value['cluster'][:8]}, {value['erasure']}, {value['partitions']} partitions"
            + (", FROZEN" if value["frozen"] else ""),
        ],
        [
            "objects",
            f"{value['objects_count']}, {human(value['logical_bytes'])}; stored {human(value['storage_used_bytes'])}",
        ],
        ["capacity", storable_text(value)],
        [
            "moving",
            f"{value['moves']} positions; fills under way are at {value['filled']:.0%}"
            if value["moves"]
            else "nothing",
        ],
        ["healing", f"{value['heals']} shards wait" if value["heals"] else "nothing"],
    ]
    rows = [["NODE", "STORE", "STATE", "UP", "ZONE", "PRIMARY", "COPIES", "POSITIONS", "USED", "FREE", "ADDRESS"]]
    rows += [
        [
            one["node"],
            one["store"][:8],
            one["state"],
            "yes" if one["up"] else "NO",
            one["domain"],
            str(one["primaries"]),
            str(one["copies"]),
            f"{one['positions']} of {one['wanted']}",
            human(one["used_bytes"]),
            human(one["free_bytes"]),
            one["address"],
        ]
        for one in value["stores"]
    ]
    return table(lines) + reasons_text(value) + "\n" + table(rows)
