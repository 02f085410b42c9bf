# /// script
# dependencies = [
#     "barman>=3.19",
#     "boto3>=1.43",
# ]
# ///
"""barman-cloud with a real PostgreSQL: WAL archived as it is written, a base backup, and a server restored from both
that holds every row, those included that were committed after the backup. PostgreSQL refuses to be root, so root runs
all of this under another id (user_namespaces(7))."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

endpoint, bucket, directory = sys.argv[1], sys.argv[2], Path(sys.argv[3]) / "pg"
binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))[-1]
tools = Path(sys.executable).parent
other = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
store = [f"s3://{bucket}/barman", "main"]
options = ["--cloud-provider", "aws-s3", "--endpoint-url", endpoint]
# Where it runs: barman's tools ask for its socket, PostgreSQL's commands for the store.
there = {
    **os.environ,
    "PGHOST": str(directory),
    "PGDATABASE": "postgres",
    "HOME": str(directory),
    "PYTHONDONTWRITEBYTECODE": "1",
}
port = "5432"  # of a socket in a directory of its own, and of no address


def run(*command: object) -> str:
    done = subprocess.run(
        [*other, *(str(one) for one in command)], capture_output=True, text=True, check=False, env=there, cwd=directory
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def start(data: Path, settings: str) -> None:
    with (data / "postgresql.conf").open("a") as file:
        file.write(
            f"listen_addresses = ''\nunix_socket_directories = '{directory}'\nport = {port}\nfsync = off\n{settings}\n"
        )
    run(binaries / "pg_ctl", "-D", data, "-w", "-t", 200, "-l", directory / "log", "start")


def query(text: str) -> str:
    return run(binaries / "psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text).strip()


def until(condition: Callable[[], bool]) -> None:
    """What PostgreSQL does by itself: two minutes are given up on."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.2)
    raise AssertionError((directory / "log").read_text()[-2000:])


directory.mkdir()
first, second = directory / "first", directory / "second"
run(binaries / "initdb", "-D", first, "-U", "postgres", "-A", "trust")
there["PGUSER"] = "postgres"
archive = " ".join([str(tools / "barman-cloud-wal-archive"), *options, *store])
start(first, f"wal_level = replica\narchive_mode = on\narchive_command = '{archive} %p'")
query(
    "CREATE TABLE kept AS SELECT n, md5(n::text) AS word, repeat(md5(n::text), 20) AS filling FROM generate_series(1, 60000) n"
)
run(tools / "barman-cloud-backup", *options, "--immediate-checkpoint", "-h", directory, "-U", "postgres", *store)
query("INSERT INTO kept SELECT n, md5(n::text), '' FROM generate_series(60001, 80000) n")
wanted = query("SELECT count(*), md5(string_agg(n || word || filling, ',' ORDER BY n)) FROM kept")
segment = query("SELECT pg_walfile_name(pg_switch_wal())")
until(lambda: query(f"SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver") == "t")
run(binaries / "pg_ctl", "-D", first, "-w", "-m", "immediate", "stop")

listed = run(tools / "barman-cloud-backup-list", *options, "--format", "json", *store)
assert '"DONE"' in listed, listed
backup = json.loads(listed)["backups_list"][0]["backup_id"]
run(tools / "barman-cloud-restore", *options, *store, backup, second)
(second / "recovery.signal").touch()
fetch = " ".join([str(tools / "barman-cloud-wal-restore"), *options, *store])
start(second, f"archive_mode = off\nrestore_command = '{fetch} %f %p'\nrecovery_target_timeline = 'current'")
until(lambda: query("SELECT pg_is_in_recovery()") == "f")
assert query("SELECT count(*), md5(string_agg(n || word || filling, ',' ORDER BY n)) FROM kept") == wanted
run(binaries / "pg_ctl", "-D", second, "-w", "-m", "fast", "stop")
run(tools / "barman-cloud-backup-delete", *options, "--backup-id", backup, *store)
assert "DONE" not in run(tools / "barman-cloud-backup-list", *options, "--format", "json", *store)
