"""`s4 admin`: status, users, buckets, compaction, verification, the auditor, renames.

People read text, programs --json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from s4.base.said import FAILED, PROBLEMS
from s4.base.text import human, table
from s4.cli import access, cluster, keys, rates, target, watch
from s4.cli.admin_client import AdminClient, AdminError, Answered, Call
from s4.cli.check import check
from s4.config.limits import parse_size

# What there is to say: the value, the text for people, and the exit status where it is not 0.
Told = tuple[Any, str] | tuple[Any, str, int]


def add_arguments(commands: Any) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    admin = commands.add_parser(
        "admin",
        help="look after a server",
        formatter_class=raw,
        description=(
            "Look after a running server through its admin port, as the root user or any SuperUser.\n\n"
            "Where and as whom may be said before or after the action. --dir DIR is enough beside a server, a node or\n"
            "`s4 dev`: it knows their addresses, and the root keys that were made there. Other keys come from\n"
            "S4_ROOT_ACCESS_KEY and S4_ROOT_SECRET_KEY, or from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        ),
    )
    actions = admin.add_subparsers(dest="action", required=True, metavar="ACTION")
    first = actions.add_parser("check", help="put an object, get it back, and clean up")
    first.add_argument(
        "--s3", default="", metavar="URL", help="the S3 endpoint [what --dir says, else http://127.0.0.1:9000]"
    )
    actions.add_parser("status", help="what the server holds and how it is")
    watch.drives_arguments(actions)
    actions.add_parser("buckets", help="buckets, with the versions of objects that they hold, and bytes")
    usage = actions.add_parser(
        "du", help="what buckets hold, the largest first: every version of every object, and what sharing content saves"
    )
    usage.add_argument("bucket", nargs="*")
    quota = actions.add_parser("quota", help="how many bytes a bucket may hold")
    quota.add_argument("bucket")
    quota.add_argument("size", help="such as 10GiB; 0 for no bound")
    user = actions.add_parser("user", help="users, their access keys and grants").add_subparsers(
        dest="user_action", required=True, metavar="ACTION"
    )
    user.add_parser("list", help="all users")
    for name, text in (("add", "make a user with an access key, printed once"), ("set", "replace a user's grants")):
        one = user.add_parser(name, help=text)
        one.add_argument("name")
        one.add_argument(
            "--grant",
            action="append",
            required=True,
            metavar="ROLE[:BUCKETS]",
            help="Reader, Writer or SuperUser, and a bucket pattern such as photos-*",
        )
    for name, text in (
        ("remove", "delete a user and its keys"),
        ("disable", "refuse a user's requests"),
        ("enable", "serve a user again"),
    ):
        user.add_parser(name, help=text).add_argument("name")
    rates.add_arguments(user, "user")
    user.add_parser("add-key", help="one more access key, printed once").add_argument("name")
    gone = user.add_parser("remove-key", help="delete an access key")
    gone.add_argument("name")
    gone.add_argument("access_key")
    _add_upkeep(actions)
    watch.add_arguments(actions)
    access.add_arguments(actions)
    cluster.admin_arguments(actions)
    keys.add_arguments(actions)
    target.add_arguments(admin)


def _add_upkeep(actions: Any) -> None:
    compact = actions.add_parser("compact", help="rewrite volumes that are mostly garbage, and free the disk")
    compact.add_argument("--garbage", default="0.5", metavar="SHARE", help="from this share of garbage on [0.5]")
    check = actions.add_parser("verify", help="check every row, reference and counter against each other")
    check.add_argument("--read", action="store_true", help="read every block and check its CRC")
    check.add_argument("--deep", action="store_true", help="read everything and check SHA-256 too")
    scrub = actions.add_parser(
        "scrub",
        help="read every shard and heal what is missing or damaged, at full speed",
        description="Read every shard that each drive should have (a node: its own store's), and every row of every copy of the metadata, "
        "by their CRCs; what is missing or damaged is healed. Rows are compared with each other by `s4 admin verify`.",
    )
    scrub.add_argument("--deep", action="store_true", help="check the SHA-256 of each blob too")
    orphans = actions.add_parser("audit", help="drop orphaned shards and references now")
    orphans.add_argument("--age", default="86400", metavar="SECONDS", help="only what is older [86400]")
    rename = actions.add_parser("rename-prefix", help="give all keys of a prefix another one, in the background")
    for name in ("bucket", "source", "destination"):
        rename.add_argument(name)
    rename.add_argument("--wait", action="store_true", help="wait until it is done")
    actions.add_parser("renames", help="renames of prefixes and how far they are")


def run_admin(arguments: argparse.Namespace) -> int:
    """Raises SaidError."""
    value, text, *code = _done(arguments)
    sys.stdout.write(json.dumps(value) + "\n" if arguments.json else text)
    return code[0] if code else 0


def _done(arguments: argparse.Namespace) -> Told:
    done = cluster.local_action(arguments) if arguments.action == "cluster" else None
    if done is not None:
        return done, "".join(f"{name}: {value}\n" for name, value in done.items())
    if arguments.action in keys.ACTIONS:
        return keys.run(arguments)
    where = target.find(arguments.dir, arguments.endpoint, arguments.authority)
    if arguments.action == "check":
        took = check(arguments.s3 or where.s3, where.access_key, where.secret_key, arguments.region, where.authority)
        return {"milliseconds": took}, f"an object was put and got back in {took:.1f} ms\n"
    client = AdminClient(where.admin, where.access_key, where.secret_key, arguments.region, where.authority)
    return _ACTIONS[arguments.action](client.call, arguments)


def _last(lines: Iterator[dict[str, Any]], arguments: argparse.Namespace, label: str) -> dict[str, Any]:
    """The last line of long work; draws a bar of `done` of `total` on the way, on a terminal."""
    value: dict[str, Any] = Answered()
    drawn = sys.stderr.isatty() and not arguments.json
    for value in lines:
        if drawn and value.get("total"):
            share = min(1.0, value["done"] / value["total"])
            bar = "#" * int(share * 40)
            sys.stderr.write(f"\r{label} [{bar:<40}] {share:4.0%} {value['done']}/{value['total']} ")
            sys.stderr.flush()
    if drawn:
        sys.stderr.write("\n")
    if not value.get("finished"):
        raise AdminError("the server stopped before it was done; run it again")
    return value


def _one(lines: Iterator[dict[str, Any]]) -> dict[str, Any]:
    return next(lines, Answered())


def _status(call: Call, arguments: argparse.Namespace) -> Told:
    value = _one(call("GET", "/status"))
    if "stores" in value:
        return value, cluster.status_text(value), cluster.status_code(value)
    rows = [
        ["health", cluster.health_word(value)],
        ["S4", value["version"] + ", " + value["ready"]],
        ["up", f"{value['uptime_seconds']:.0f} s"],
        ["buckets", str(value["buckets_count"])],
        ["objects", f"{value['objects_count']}, {human(value['logical_bytes'])}"],
        ["stored", human(value["storage_used_bytes"])],
        [
            "dedup",
            f"{value['dedup_total_references']} references to {value['dedup_unique_blobs']} blobs, ratio {value['dedup_ratio']}",
        ],
        ["volumes", f"{value['volumes']}, {human(value['volume_bytes'])}, garbage {human(value['garbage_bytes'])}"],
        [
            "disk",
            f"{cluster.storable_text(value)}; {human(value['disk_free_bytes'])} free of {human(value['disk_total_bytes'])}, reserve {human(value['disk_reserve_bytes'])}",
        ],
        ["uploads", "accepted" if value["accepts_writes"] else "REFUSED: free disk is below the reserve"],
        ["damage", f"{value['damaged_reads']} reads found damage" if value["damaged_reads"] else "none seen"],
        ["durability", value["settings"]["durability"]],
    ]
    if len(value["drives"]) > 1:
        rows += _drive_lines(value)
    return value, table(rows) + cluster.reasons_text(value), cluster.status_code(value)


def _drive_lines(value: dict[str, Any]) -> list[list[str]]:
    """What `status` says of a server with several drives."""
    drives, scrub = value["drives"], value["scrub"]
    counts = {"online": 0, "filling": 0, "away": 0} | Counter(drive["state"] for drive in drives)
    states = [f"{count} {state}" for state, count in counts.items()]
    healing = f"{value['heal_waiting']} shards wait, {value['healed_shards']} made again"
    if value["heal_failed"]:
        healing += f", {value['heal_failed']} CANNOT BE MADE: too many others are lost"
    ended = time.strftime("%Y-%m-%d %H:%M", time.gmtime(scrub["ended_s"])) + " UTC" if scrub["ended_s"] else "never"
    running = f"running, {scrub['progress']:.0%}; " if scrub["running"] else ""
    return [
        ["erasure", f"{value['erasure']} over {len(drives)} drives: {', '.join(states)}"],
        ["metadata", f"{value['metadata_copies']} of {value['metadata_copies_wanted']} copies"],
        ["healing", healing],
        ["scrub", f"{running}last ended {ended}, {scrub['damaged']} shards damaged"],
    ]


# What is done to a node of a cluster where a server's drive is named.
_OF_NODES = {"retry": "status", "replace": "replace", "add": "add", "drain": "drain", "remove": "remove"}


def _drives(call: Call, arguments: argparse.Namespace) -> Told:
    value = _one(call("GET", "/status"))
    if "stores" in value:
        what = f"see `cluster {_OF_NODES[arguments.care]}`" if arguments.care else "see `cluster status`"
        raise AdminError(f"this is a cluster, of which each node has one drive: {what} (`s4 admin cluster --help`)")
    if arguments.care:
        return watch.care_for_drive(call, arguments)
    rows = [
        ["DRIVE", "DIRECTORY", "STATE", "POSITIONS", "FILLED", "METADATA", "USED", "FREE", "DAMAGED READS", "REASON"]
    ]
    rows += [
        [
            str(drive["number"]),
            drive["directory"],
            drive["state"],
            str(drive.get("positions", "")),
            f"{drive['filled']:.0%}",
            "yes" if drive["metadata"] else "",
            human(drive["used_bytes"]),
            human(drive["free_bytes"]),
            str(drive["damaged_reads"]),
            drive["reason"],
        ]
        for drive in value["drives"]
    ]
    return value["drives"], table(rows)


def _scrub(call: Call, arguments: argparse.Namespace) -> Told:
    value = _last(call("POST", "/scrub", query="deep=1" if arguments.deep else ""), arguments, "scrubbing")
    text = f"{value['blobs']} blobs, {human(value['bytes_read'])} read: {value['damaged']} shards missing or damaged\n"
    text += "".join(f"  blob {blob} does not have its SHA-256\n" for blob in value["unhealable"])
    return value, text, PROBLEMS if value["damaged"] or value["unhealable"] else 0


def _buckets(call: Call, arguments: argparse.Namespace) -> Told:
    value = _one(call("GET", "/buckets"))
    rows = [["BUCKET", "VERSIONS", "SIZE", "QUOTA", "VERSIONING", "OWNER", "RATE"]]
    rows += [
        [
            row["name"],
            str(row["objects"]),
            human(row["bytes"]),
            human(row["quota_bytes"]) if row["quota_bytes"] else "-",
            row["versioning"],
            row["owner"],
            rates.shown(row),
        ]
        for row in value["buckets"]
    ]
    return value, table(rows)


def _du(call: Call, arguments: argparse.Namespace) -> Told:
    found = _one(call("GET", "/buckets"))["buckets"]
    missing = set(arguments.bucket) - {row["name"] for row in found}
    if missing:
        raise AdminError(f"there is no bucket {', '.join(sorted(missing))}")
    listed = sorted(
        (row for row in found if not arguments.bucket or row["name"] in arguments.bucket),
        key=lambda row: -int(row["bytes"]),
    )
    sums = {name: sum(row[name] for row in listed) for name in ("objects", "bytes", "saved_bytes")}
    rows = [["BUCKET", "VERSIONS", "SIZE", "SHARED"]]
    for row in (*listed, {"name": "total", **sums}):
        rows.append([row["name"], str(row["objects"]), human(row["bytes"]), human(row["saved_bytes"])])
    return {"buckets": listed, "total": sums}, table(rows)


def _quota(call: Call, arguments: argparse.Namespace) -> Told:
    try:
        size = parse_size(arguments.size)
    except ValueError as error:
        raise AdminError(str(error)) from error
    value = _one(call("PUT", f"/buckets/{arguments.bucket}/quota", {"bytes": size}))
    return value, f"{arguments.bucket} may hold {human(size) if size else 'any number of bytes'}\n"


def _user(call: Call, arguments: argparse.Namespace) -> Told:
    action, path = arguments.user_action, f"/users/{getattr(arguments, 'name', '')}"
    if action == "list":
        value = _one(call("GET", "/users"))
        rows = [["USER", "ENABLED", "GRANTS", "ACCESS KEYS", "RATE"]]
        rows += [
            [
                user["name"],
                "yes" if user["enabled"] else "no",
                " ".join(user["grants"]),
                " ".join(user["access_keys"]),
                rates.shown(user),
            ]
            for user in value["users"]
        ]
        return value, table(rows)
    if action == "rate":
        return rates.set_rate(call, arguments, "users")
    if action == "add":
        _one(call("PUT", path, {"grants": arguments.grant, "create": True}))
    if action in ("add", "add-key"):
        value = _one(call("POST", f"{path}/keys"))
        keys = f"access key: {value['access_key']}\nsecret key: {value['secret_key']}\n"
        return value, keys + "The secret key is not shown again.\n"
    if action == "set":
        value = _one(call("PUT", path, {"grants": arguments.grant}))
        return value, f"{arguments.name} has {' '.join(arguments.grant)}\n"
    if action in ("enable", "disable"):
        value = _one(call("PUT", path, {"enabled": action == "enable"}))
        return value, f"{arguments.name} is {action}d\n"
    if action == "remove":
        return _one(call("DELETE", path)), f"{arguments.name} is removed, with its keys\n"
    value = _one(call("DELETE", f"{path}/keys/{arguments.access_key}"))
    return value, f"{arguments.access_key} is removed\n"


def _compact(call: Call, arguments: argparse.Namespace) -> Told:
    value = _last(call("POST", "/compact", query=f"ratio={quote(arguments.garbage)}"), arguments, "compacting")
    return value, f"{value['total']} volumes compacted, {human(value['freed_bytes'])} given back\n"


def _verify(call: Call, arguments: argparse.Namespace) -> Told:
    query = "deep=1" if arguments.deep else "read=1" if arguments.read else ""
    value = _last(call("POST", "/verify", query=query), arguments, "verifying")
    text = f"{value['objects']} objects, {value['blobs']} blobs, {value['references']} references, {human(value['bytes_read'])} read: "
    text += f"{len(value['problems'])} problems\n" + "".join(f"  {problem}\n" for problem in value["problems"])
    return value, text, PROBLEMS if value["problems"] else 0


def _audit(call: Call, arguments: argparse.Namespace) -> Told:
    value = _one(call("POST", "/audit", query=f"age_s={quote(arguments.age)}"))
    text = f"{value['blobs_checked']} blobs and {value['references_checked']} references checked; dropped {value['orphan_blobs']} blobs ({human(value['orphan_bytes'])}), {value['orphan_references']} references"
    text += f" and {value.get('stale_contents', 0)} hints at content that is gone\n"
    return value, text


def _rename(call: Call, arguments: argparse.Namespace) -> Told:
    body = {"bucket": arguments.bucket, "source": arguments.source, "destination": arguments.destination}
    made = _one(call("POST", "/renames", body))
    if not arguments.wait:
        return made, f"rename {made['id']} runs; `s4 admin renames` shows how far it is\n"
    while True:
        job = next((job for job in _one(call("GET", "/renames"))["renames"] if job["id"] == made["id"]), None)
        if job is None or job["finished"]:
            break
        if sys.stderr.isatty() and not arguments.json:
            sys.stderr.write(f"\r{job['done']} keys renamed ")
        time.sleep(0.2)  # between looks at a job on another machine
    error = job["error"] if job else ""
    text = f"{job['done'] if job else 0} keys renamed{': ' + error if error else ''}\n"
    return job, text, FAILED if error else 0


def _renames(call: Call, arguments: argparse.Namespace) -> Told:
    value = _one(call("GET", "/renames"))
    rows = [["ID", "BUCKET", "FROM", "TO", "DONE", "STATE"]]
    rows += [
        [
            job["id"],
            job["bucket"],
            job["from"],
            job["to"],
            str(job["done"]),
            job["error"] or ("done" if job["finished"] else "running"),
        ]
        for job in value["renames"]
    ]
    return value, table(rows)


_ACTIONS: dict[str, Callable[[Call, argparse.Namespace], Told]] = {
    "status": _status,
    "cluster": cluster.remote_action,
    "drives": _drives,
    "scrub": _scrub,
    "buckets": _buckets,
    "du": _du,
    "quota": _quota,
    "user": _user,
    "compact": _compact,
    "verify": _verify,
    "audit": _audit,
    "log": watch.set_log,
    "jobs": watch.jobs,
    "root-keys": watch.root_keys,
    "bucket": access.set_access,
    "policy": access.explain,
    "rename-prefix": _rename,
    "renames": _renames,
}
