"""The `s4` command: `s4 server` runs a server, `s4 node` and `s4 gateway` run parts of a cluster, `s4 dev` all of one,
`s4 admin` talks to any of them.

Every option of the server is also an environment variable (S4_LISTEN for --listen), so that containers and
units need no command line. Heavy imports happen once the command is known.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s4 import __version__
from s4.base.said import FAILED, INTERRUPTED, USAGE, count, end, number, of_option, one_of
from s4.cli.grammar import Parser, whole
from s4.config.limits import Limits, parse_size, with_settings

if TYPE_CHECKING:
    from s4.server.parts import ServerSettings
    from s4.server.standalone import Server

_EPILOG = """\
start here:
  s4 server ./data                      serve S3 on port 9000, data in ./data; prints the root keys once
  s4 server /mnt/d1 /mnt/d2 … /mnt/d6   the same over six drives, of which any two may be lost
  aws --endpoint-url http://127.0.0.1:9000 s3 mb s3://first
  s4 admin --dir ./data status          what the server holds and how it is
  s4 dev ./cluster --nodes 6            a whole cluster, with an etcd, on this machine
  s4 admin --dir ./data user add ana --grant Writer:photos-*

Keys of the root user come from S4_ROOT_ACCESS_KEY and S4_ROOT_SECRET_KEY, or are made and kept in the data
directory. `s4 server --help` lists every setting, `s4 admin --help` every command.
"""

_LIMITS = "limits (each with --limit NAME=VALUE or S4_LIMIT_NAME; sizes as 64KiB, 5GiB):\n"

_SERVER_EPILOG = """\
durability:
  sync       an acknowledged write survives loss of power: one fdatasync for all who wait (the default)
  interval   synced once a second: a crash of the machine may lose the last second or so
  none       the kernel decides; for scratch data

"""


def build_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser("s4", description="S3 object storage on local disks.", epilog=_EPILOG, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"s4 {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    bounds = "".join(f"  {field.name:18} {_shown(field.default)}\n" for field in fields(Limits))
    server = commands.add_parser(
        "server",
        help="serve S3 from directories",
        formatter_class=raw,
        epilog=_SERVER_EPILOG + _LIMITS + bounds,
        description="Serve S3 from one directory, or from several with erasure coding across them. "
        "New ones are made and formatted.",
    )
    _server_arguments(server)
    from s4.cli import admin, cluster  # noqa: PLC0415

    node = commands.add_parser(
        "node",
        help="be one store of a cluster",
        formatter_class=raw,
        epilog=_LIMITS + bounds,
        description="Keep one directory as a store of a cluster, and serve S3 for all of it.",
    )
    gateway = commands.add_parser(
        "gateway",
        help="serve S3 for a cluster",
        formatter_class=raw,
        epilog=_LIMITS + bounds,
        description="Serve S3 for a cluster without keeping anything.",
    )
    for one in (node, gateway):
        cluster.cluster_arguments(functools.partial(_option, one), one, store=one is node)
        common_arguments(one)
    cluster.dev_arguments(commands)
    admin.add_arguments(commands)
    shells = commands.add_parser(
        "completion",
        help="print what makes a shell complete these commands",
        description='For this shell: eval "$(s4 completion bash)"; for all, put its output where the shell looks for completions.',
    )
    shells.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return whole(parser)


def _shown(value: object) -> str:
    for unit, size in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if isinstance(value, int) and value >= size and value % size == 0:
            return f"{value // size}{unit}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _option(
    parser: argparse.ArgumentParser, name: str, default: str, text: str, *, unless_told: str = "none", **more: Any
) -> None:
    """An option that is an environment variable too; `unless_told` is what help says of an empty default."""
    variable = "S4_" + name.strip("-").upper().replace("-", "_")
    if "choices" in more:  # argparse does not look at defaults, which a variable gives
        more["type"] = functools.partial(one_of, more["choices"])
    added = parser.add_argument(
        name, default=os.environ.get(variable, default), help=f"{text} [{default or unless_told}]", **more
    )
    added.variable = variable  # type: ignore[attr-defined]  # for who looks for those that are none (server/starting.py)


def _server_arguments(server: argparse.ArgumentParser) -> None:
    server.add_argument(
        "directories", nargs="+", metavar="DIR", help="data directories, one for each drive, always in the same order"
    )
    _option(server, "--erasure", "", "data and parity shards, such as 4+2; fixed at the first start", metavar="K+M")
    _option(
        server, "--workers", "0", "gateway processes beside the store's; 0 serves S3 from the store's own", metavar="N"
    )
    _option(server, "--durability", "sync", "sync, interval or none", choices=("sync", "interval", "none"))
    common_arguments(server)
    server.add_argument(
        "--degraded", action="store_true", help="start with less than a majority of the drives, all else being lost"
    )
    server.add_argument("--check", action="store_true", help="once up, put a first object and get it back")


SIGNATURE_V2 = "where signature version 2 is taken: in presigned addresses, in headers and forms too (all), or off"


def common_arguments(parser: argparse.ArgumentParser) -> None:
    """What a server, a node and a gateway are told alike."""
    option = functools.partial(_option, parser)
    option("--strict", "off", "refuse writes while not every drive can take them: on or off", choices=("on", "off"))
    option("--scrub-every", "604800", "seconds between two checks of every byte", metavar="SECONDS")
    option("--scrub-rate", "32MiB", "bytes a second that a check reads", metavar="SIZE")
    option("--heal-rate", "0", "bytes a second that healing and filling read; 0 is no bound", metavar="SIZE")
    option("--listen", "0.0.0.0:9000", "address of the S3 port", metavar="HOST:PORT")
    option("--admin-listen", "127.0.0.1:9001", "address of the admin, metrics and health port", metavar="HOST:PORT")
    option("--admin-tls", "on", "off: take admin calls from other machines in the clear too", choices=("on", "off"))
    option(
        "--bucket-metrics",
        "off",
        "on: tell buckets by their names at /metrics, which anybody reads who reaches it",
        choices=("on", "off"),
    )
    option("--region", "us-east-1", "the region that requests must be signed for")
    option("--domain", "", "serve BUCKET.DOMAIN as virtual hosts; several with commas", metavar="DOMAIN")
    option("--website-domain", "", "show buckets as websites at BUCKET.DOMAIN; several with commas", metavar="DOMAIN")
    option(
        "--new-buckets",
        "aws",
        "what a new bucket begins with: as on S3 today (nothing public, no ACLs), or open to ACLs and public policies, as programs written for MinIO or Ceph expect",
        choices=("aws", "open"),
    )
    option("--certificate", "", "TLS certificate chain (PEM); read again when it changes", metavar="FILE")
    option("--key", "", "key of the certificate (PEM)", metavar="FILE")
    option(
        "--master-key", "", "file with the key that secrets are sealed with: the same for every process", metavar="FILE"
    )
    _kms_arguments(option)
    option("--signature-v2", "query", SIGNATURE_V2, choices=("query", "all", "off"))
    option("--bare-keys", "off", "take keys of objects (SSE-C) without TLS too: on or off", choices=("on", "off"))
    option(
        "--receivers",
        "",
        "who can be told of events: YAML, see s4/notify/receivers.py; the same for every process",
        metavar="FILE",
    )
    option("--inline", "4096", "objects smaller than this live in their metadata row", metavar="BYTES")
    option(
        "--small",
        "",
        "content up to this that is not inline lives in its blob's row; 0 is off",
        metavar="SIZE",
        unless_told="8KiB",
    )
    option("--dedup", "on", "share equal content: on or off", choices=("on", "off"))
    option("--reserve", "1GiB", "free disk below which uploads are refused", metavar="SIZE")
    option("--volume-size", "1GiB", "size at which a volume file is sealed", metavar="SIZE")
    option("--preallocate", "64MiB", "disk reserved ahead of a volume's end", metavar="SIZE")
    option("--lifecycle-day", "86400", "length of a day of lifecycle rules, for trials", metavar="SECONDS")
    option("--garbage", "0.5", "share of garbage at which a volume is compacted", metavar="SHARE")
    option("--orphan-age", "86400", "seconds until the auditor takes unclaimed data for lost", metavar="SECONDS")
    option("--audit-log", "", "file, - for standard output, none; default DIR/audit.log", metavar="PATH")
    option("--access-log", "off", "log every request: on or off", choices=("on", "off"))
    option("--log-level", "info", "debug, info, warning or error", choices=("debug", "info", "warning", "error"))
    option("--log-format", "auto", "json, text, or auto: text on a terminal", choices=("json", "text", "auto"))
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=VALUE", help="change a bound; see the list below"
    )


def _kms_arguments(option: Callable[..., None]) -> None:
    option(
        "--kms", "", "what wraps keys of objects: a file of NAME:BASE64 lines, or the URL of Vault", metavar="FILE|URL"
    )
    option("--kms-key", "", "the KMS's key where a request names none; default: the file's first", metavar="NAME")
    option("--kms-token", "", "file with the token for Vault; read again at each call", metavar="FILE")
    option("--kms-mount", "transit", "where Vault's transit engine is mounted", metavar="PATH")
    option(
        "--kms-allow",
        "",
        "which buckets may use which keys of the KMS, and no others then; with * and ?; default: all of them all",
        metavar="KEY=BUCKET,BUCKET;KEY=…",
    )


def _limits(arguments: argparse.Namespace) -> Limits:
    """Raises ValueError that says what to change."""
    chosen = {name[9:].lower(): value for name, value in os.environ.items() if name.startswith("S4_LIMIT_")}
    for text in arguments.limit:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--limit {text}: write NAME=VALUE")
        chosen[name] = value
    return with_settings(Limits(), chosen)


def common_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of ServerSettings that `common_arguments` give. Raises ValueError that says what to change."""
    from s4.config.listening import parse_address  # noqa: PLC0415
    from s4.crypto.kms import allowed_of  # noqa: PLC0415
    from s4.metadata import small as small_content  # noqa: PLC0415

    bounds = _limits(arguments)
    if bool(arguments.certificate) != bool(arguments.key):
        raise ValueError("--certificate and --key go together")
    if {*arguments.domain.lower().split(",")} & {*arguments.website_domain.lower().split(",")} - {""}:
        raise ValueError("--domain and --website-domain must differ: one speaks S3, the other to visitors")
    of_option("--listen", parse_address, arguments.listen)
    of_option("--admin-listen", parse_address, arguments.admin_listen)
    if arguments.kms.startswith(("http://", "https://")) and not (arguments.kms_key and arguments.kms_token):
        raise ValueError("--kms with a URL needs --kms-key and --kms-token")
    if allowed_of(arguments.kms_allow) and not arguments.kms:
        raise ValueError("--kms-allow goes with --kms: it says which buckets may use its keys")
    inline = of_option("--inline", parse_size, arguments.inline)
    if not 1 <= inline <= 65536:
        raise ValueError("--inline is between 1 and 64KiB")
    small = of_option("--small", parse_size, arguments.small) if arguments.small else small_content.unless_told(inline)
    small_content.check(small, inline)
    return {
        "strict": arguments.strict == "on",
        "scrub_every_s": number(arguments.scrub_every, "--scrub-every", 0, 1e9),
        "scrub_bytes_per_s": of_option("--scrub-rate", parse_size, arguments.scrub_rate),
        "heal_bytes_per_s": of_option("--heal-rate", parse_size, arguments.heal_rate),
        "listen": arguments.listen,
        "admin_listen": arguments.admin_listen,
        "region": arguments.region,
        "admin_tls": arguments.admin_tls == "on",
        "bucket_metrics": arguments.bucket_metrics == "on",
        "domains": [domain for domain in arguments.domain.lower().split(",") if domain],
        "website_domains": [domain for domain in arguments.website_domain.lower().split(",") if domain],
        "certificate": arguments.certificate,
        "key": arguments.key,
        "inline_bytes": inline,
        "small_bytes": small,
        "master_key": arguments.master_key,
        "kms": arguments.kms,
        "kms_key": arguments.kms_key,
        "receivers": arguments.receivers,
        "kms_token": arguments.kms_token,
        "kms_mount": arguments.kms_mount,
        "kms_allow": arguments.kms_allow,
        "bare_keys": arguments.bare_keys == "on",
        "new_buckets": arguments.new_buckets,
        "signature_v2": arguments.signature_v2,
        "dedup": arguments.dedup == "on",
        "reserve_bytes": of_option("--reserve", parse_size, arguments.reserve),
        "volume_bytes": of_option("--volume-size", parse_size, arguments.volume_size),
        "preallocate_bytes": of_option("--preallocate", parse_size, arguments.preallocate),
        "lifecycle_day_s": number(arguments.lifecycle_day, "--lifecycle-day", 1, 86_400),
        "garbage_ratio": number(arguments.garbage, "--garbage", 0.01, 1),
        "orphan_age_s": number(arguments.orphan_age, "--orphan-age", 0, 1e9),
        "audit_log": arguments.audit_log,
        "access_log": arguments.access_log == "on",
        "log_level": arguments.log_level,
        "log_format": arguments.log_format,
        "limits": bounds,
    }


def server_settings(arguments: argparse.Namespace) -> ServerSettings:
    """Settings of parsed arguments and the environment. Raises ValueError that says what to change."""
    from s4.erasure.codec import parse_geometry  # noqa: PLC0415
    from s4.server.parts import ServerSettings  # noqa: PLC0415

    return ServerSettings(
        directories=[str(Path(one).absolute()) for one in arguments.directories],
        degraded=arguments.degraded,
        erasure=of_option("--erasure", parse_geometry, arguments.erasure) if arguments.erasure else None,
        workers=count(arguments.workers, "--workers", 0, 64),
        durability=arguments.durability,
        **common_settings(arguments),
    )


def _share_metrics(workers: str) -> None:
    """Have metrics of several processes counted together. Before prometheus_client is imported, which reads it then."""
    if workers not in ("", "0"):
        from s4.cli.scratch import own_directory  # noqa: PLC0415

        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(own_directory("s4-metrics-"))


def run_server(arguments: argparse.Namespace) -> int:
    _share_metrics(arguments.workers)
    import uvloop  # noqa: PLC0415

    from s4.server import restart  # noqa: PLC0415
    from s4.server.standalone import run as run_until_told  # noqa: PLC0415
    from s4.storage.leveldb import DatabaseError  # noqa: PLC0415

    _warn_of_variables(arguments)
    try:
        settings = server_settings(arguments)
        uvloop.run(run_until_told(settings, dict(os.environ), _announce_and_check if arguments.check else _announce))
    except (DatabaseError, OSError) as error:
        if restart.History.read(os.environ).failures:
            restart.die(error)  # what failed is still failing
        raise
    return 0


def run_member(arguments: argparse.Namespace) -> int:
    """Run `s4 node` or `s4 gateway`."""
    _share_metrics(getattr(arguments, "workers", "0"))
    import uvloop  # noqa: PLC0415

    from s4.cli.cluster import announce, cluster_settings  # noqa: PLC0415
    from s4.server.cluster import run_cluster  # noqa: PLC0415

    _warn_of_variables(arguments)
    settings = cluster_settings(arguments, common_settings(arguments))
    uvloop.run(run_cluster(settings, dict(os.environ), announce))
    return 0


def _warn_of_variables(arguments: argparse.Namespace) -> None:
    """Name the variables that look like settings and are none."""
    from s4.server import starting  # noqa: PLC0415
    from s4.telemetry import logs  # noqa: PLC0415

    logs.configure(arguments.log_level, arguments.log_format)
    for text in starting.unknown(os.environ, starting.variables(build_parser())):
        starting.log.warning(text)


async def _announce(server: Server) -> None:
    """Say where the server is, here and in its directories, and the root keys when they were just made."""
    from s4.cli import target  # noqa: PLC0415

    say, settings = sys.stdout.write, server.settings
    s3, admin = target.urls(server.endpoint, server.admin_endpoint, settings.certificate, settings.certificate)
    directories = [drive.directory for drive, _ in server.store.drives.online()]
    target.write(directories, s3, admin, settings.certificate)
    say(f"S4 {__version__} serves S3 at {s3}, admin at {admin}\n")
    if server.store.root_made:
        root = server.store.root
        say(f"root access key: {root.access_key}\nroot secret key: {root.secret_key}\n")
        say(f"These are kept in {server.store.directory / 'root.json'} and not printed again.\n")
        say(f"s4 admin --dir {server.store.directory} status   shows how it is\n")
    sys.stdout.flush()


async def _announce_and_check(server: Server) -> None:
    import asyncio  # noqa: PLC0415 - half of the start of a command that needs none

    from s4.cli.check import CheckError, check  # noqa: PLC0415

    await _announce(server)
    scheme = "https" if server.settings.certificate else "http"
    root = server.store.root
    call = functools.partial(
        check,
        f"{scheme}://{server.endpoint}",
        root.access_key,
        root.secret_key,
        server.settings.region,
        server.settings.certificate,
    )
    try:
        took = await asyncio.get_running_loop().run_in_executor(None, call)
    except CheckError as error:
        sys.stderr.write(f"s4: the first object failed: {error}\n")
        return
    sys.stdout.write(f"first object put and got back in {took:.1f} ms\n")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    _have_streams()
    try:
        status = run(build_parser().parse_args(argv))
    except SystemExit:
        _flush()
        raise
    return _flush() or status


def _have_streams() -> None:
    """Whoever starts this may have closed standard streams: what is opened next would get their numbers, which libuv
    does not close, and a log would be written into it."""
    for place, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            os.dup2(opened, place)
            if opened != place:
                os.close(opened)
            os.set_inheritable(place, True)
            setattr(sys, name, open(place, "w" if place else "r", closefd=False))  # noqa: SIM115 - for good


def _flush() -> int:
    """Write what waits to be written: the exit status where it cannot be."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter tries it again
        if not isinstance(error, BrokenPipeError):  # who read the output has seen enough of it
            return end("s4", error, FAILED)
    return 0


def run(arguments: argparse.Namespace) -> int:
    """The exit status of a command; why it could not be done is said here, whatever it was."""
    command = str(arguments.command)
    try:
        return _run(command, arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return FAILED
    except Exception as error:
        status = USAGE if command in ("server", "node", "gateway") else FAILED
        return end(f"s4 {command}", error, status, as_json=getattr(arguments, "json", False))


def _run(command: str, arguments: argparse.Namespace) -> int:
    """Raises whatever a command cannot do."""
    if command == "server":
        return run_server(arguments)
    if command in ("node", "gateway"):
        return run_member(arguments)
    if command == "dev":
        if arguments.act:
            from s4.cli.cluster import dev_act  # noqa: PLC0415

            return dev_act(Path(arguments.directory).absolute(), arguments.act, arguments.node or "")
        from s4.cli.dev import run_dev  # noqa: PLC0415

        return run_dev(arguments)
    if command == "completion":
        import shtab  # noqa: PLC0415

        sys.stdout.write(shtab.complete(build_parser(), arguments.shell) + "\n")
        return 0
    from s4.cli.admin import run_admin  # noqa: PLC0415

    return run_admin(arguments)
