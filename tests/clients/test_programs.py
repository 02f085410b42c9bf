"""Programs that people use, unchanged, against a real server. One that the machine lacks is skipped by name."""

from __future__ import annotations

import filecmp
import os
import random
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import boto3
import pytest

import kept
from process import ACCESS, REGION, SECRET, ServerProcess

HANGS_S = 3000  # nothing that a busy machine makes slow takes so long
TOOLS = Path(__file__).parents[2] / ".tools"
PYTHON_ENVIRONMENT = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": REGION}


def program(name: str, built: Path | None = None) -> str:
    found = str(built) if built is not None and built.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on this machine: `make clients` and .ci/run install what can be had")
    return found


def run(*command: str, environment: dict[str, str] | None = None, home: Path) -> str:
    done = kept.run(
        command,
        limit_s=HANGS_S,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "AWS_CONFIG_FILE": str(home / "config"),
            **PYTHON_ENVIRONMENT,
            **(environment or {}),
        },
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of many sizes and awkward names."""
    chosen = random.Random(1)
    root = tmp_path / "tree"
    for number, size in enumerate([0, 1, 100, 4095, 4096, 70_000, 1 << 20, 9_000_000, 20_000_000]):
        path = root / f"dir {number % 3}" / f"ü+{number} &=.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chosen.randbytes(size))
    (root / "same.bin").write_bytes((root / "dir 2" / "ü+5 &=.bin").read_bytes())
    return root


def same(left: Path, right: Path) -> bool:
    names = sorted(str(path.relative_to(left)) for path in left.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(right)) for path in right.rglob("*") if path.is_file())
    return filecmp.cmpfiles(left, right, names, shallow=False)[0] == names


def test_aws_cli(server: ServerProcess, tree: Path, tmp_path: Path) -> None:
    aws = [program("aws", TOOLS / "aws" / "bin" / "aws"), "--endpoint-url", server.endpoint]
    run(*aws, "s3", "mb", "s3://awscli", home=tmp_path)
    run(*aws, "s3", "sync", str(tree), "s3://awscli/tree", home=tmp_path)
    assert "same.bin" in run(*aws, "s3", "ls", "--recursive", "s3://awscli", home=tmp_path)
    run(*aws, "s3", "sync", "s3://awscli/tree", str(tmp_path / "back"), home=tmp_path)
    assert same(tree, tmp_path / "back")
    large = tree / "dir 2" / "ü+8 &=.bin"  # in parts
    run(*aws, "s3", "cp", str(large), "s3://awscli/large", home=tmp_path)
    run(*aws, "s3", "cp", "s3://awscli/large", str(tmp_path / "large"), home=tmp_path)
    assert (tmp_path / "large").read_bytes() == large.read_bytes()
    run(*aws, "s3", "mv", "s3://awscli/tree/same.bin", "s3://awscli/moved.bin", home=tmp_path)
    run(*aws, "s3", "cp", "s3://awscli/tree", "s3://awscli/copied", "--recursive", home=tmp_path)
    link = run(*aws, "s3", "presign", "s3://awscli/moved.bin", home=tmp_path).strip()
    assert "AWSAccessKeyId=" in link, "it signs by version 4 now"
    with urlopen(link) as answer:
        assert answer.read() == (tree / "same.bin").read_bytes()
    run(*aws, "s3", "rb", "--force", "s3://awscli", home=tmp_path)


def test_rclone(server: ServerProcess, tree: Path, tmp_path: Path) -> None:
    rclone = program("rclone")
    environment = {
        "RCLONE_CONFIG_S4_TYPE": "s3",
        "RCLONE_CONFIG_S4_PROVIDER": "Other",
        "RCLONE_CONFIG_S4_ENDPOINT": server.endpoint,
        "RCLONE_CONFIG_S4_ACCESS_KEY_ID": ACCESS,
        "RCLONE_CONFIG_S4_SECRET_ACCESS_KEY": SECRET,
        "RCLONE_CONFIG_S4_REGION": REGION,
    }
    run(rclone, "mkdir", "s4:rclone", environment=environment, home=tmp_path)
    run(rclone, "copy", str(tree), "s4:rclone/tree", environment=environment, home=tmp_path)
    run(rclone, "check", "--download", str(tree), "s4:rclone/tree", environment=environment, home=tmp_path)
    run(rclone, "sync", "s4:rclone/tree", str(tmp_path / "back"), environment=environment, home=tmp_path)
    assert same(tree, tmp_path / "back")
    run(rclone, "moveto", "s4:rclone/tree/same.bin", "s4:rclone/other.bin", environment=environment, home=tmp_path)
    run(rclone, "purge", "s4:rclone", environment=environment, home=tmp_path)


def test_s3cmd(server: ServerProcess, tree: Path, tmp_path: Path) -> None:
    host = urlsplit(server.endpoint).netloc
    s3cmd = [
        program("s3cmd"),
        f"--access_key={ACCESS}",
        f"--secret_key={SECRET}",
        f"--host={host}",
        f"--host-bucket={host}",
        "--no-ssl",
        f"--region={REGION}",
        "--config=/dev/null",
    ]
    run(*s3cmd, "mb", "s3://s3cmd", home=tmp_path)
    run(*s3cmd, "sync", f"{tree}/", "s3://s3cmd/tree/", home=tmp_path)
    assert "same.bin" in run(*s3cmd, "ls", "--recursive", "s3://s3cmd", home=tmp_path)
    (tmp_path / "back").mkdir()
    run(*s3cmd, "sync", "s3://s3cmd/tree/", f"{tmp_path / 'back'}/", home=tmp_path)
    assert same(tree, tmp_path / "back")
    large = tree / "dir 2" / "ü+8 &=.bin"  # in parts
    run(*s3cmd, "put", str(large), "s3://s3cmd/large", home=tmp_path)
    run(*s3cmd, "get", "s3://s3cmd/large", str(tmp_path / "large"), home=tmp_path)
    assert (tmp_path / "large").read_bytes() == large.read_bytes()
    run(*s3cmd, "cp", "s3://s3cmd/tree/same.bin", "s3://s3cmd/copy.bin", home=tmp_path)
    for name in ("same.bin", "dir 1/ü+4 &=.bin"):
        link = run(*s3cmd, "signurl", f"s3://s3cmd/tree/{name}", "+600", home=tmp_path).strip()
        with urlopen(link) as answer:
            assert answer.read() == (tree / name).read_bytes()
    run(*s3cmd, "del", "--recursive", "--force", "s3://s3cmd", home=tmp_path)
    run(*s3cmd, "rb", "s3://s3cmd", home=tmp_path)


def test_boto3(server: ServerProcess, tmp_path: Path) -> None:
    """A client with nothing set but where and who."""
    client = boto3.client("s3", endpoint_url=server.endpoint, aws_access_key_id=ACCESS, aws_secret_access_key=SECRET)
    client.create_bucket(Bucket="boto3")
    content = os.urandom(20_000_000)
    (tmp_path / "large").write_bytes(content)
    client.upload_file(str(tmp_path / "large"), "boto3", "a b/ü+large")
    client.download_file("boto3", "a b/ü+large", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content
    about = {"Bucket": "boto3", "Key": "a b/ü+large"}
    with urlopen(client.generate_presigned_url("get_object", Params=about)) as answer:
        assert answer.read() == content
    upload = Request(
        client.generate_presigned_url("put_object", Params={**about, "ContentType": "text/plain"}),
        b"x",
        {"Content-Type": "text/plain"},
        method="PUT",
    )
    with urlopen(upload) as answer:
        assert answer.status == 200
    listed = client.list_objects_v2(Bucket="boto3")["Contents"]
    assert [(one["Key"], one["Size"]) for one in listed] == [("a b/ü+large", 1)]
    client.close()


def test_minio_go(server: ServerProcess, tmp_path: Path) -> None:
    client = program("minio-go-client", TOOLS / "minio-go-client")
    said = run(client, server.endpoint, "minio-go", home=tmp_path)
    assert said.endswith("done\n")


def test_restic(server: ServerProcess, tree: Path, tmp_path: Path) -> None:
    restic = program("restic")
    environment = {
        "RESTIC_REPOSITORY": f"s3:{server.endpoint}/restic/repo",
        "RESTIC_PASSWORD": "p",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    run(restic, "init", environment=environment, home=tmp_path)
    run(restic, "backup", str(tree), environment=environment, home=tmp_path)
    (tree / "changed").write_bytes(os.urandom(100_000))
    run(restic, "backup", str(tree), environment=environment, home=tmp_path)
    run(restic, "check", "--read-data", environment=environment, home=tmp_path)
    run(restic, "restore", "latest", "--target", str(tmp_path / "back"), environment=environment, home=tmp_path)
    assert same(tree, tmp_path / "back" / tree.relative_to("/"))
    run(restic, "forget", "--keep-last", "1", "--prune", environment=environment, home=tmp_path)
    run(restic, "check", "--read-data", environment=environment, home=tmp_path)


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)
def test_s3fs(server: ServerProcess, tree: Path, tmp_path: Path) -> None:
    import s3fs

    # with a region it names us-east-1 as a new bucket's location, which S3 refuses too
    files: Any = s3fs.S3FileSystem(key=ACCESS, secret=SECRET, endpoint_url=server.endpoint, skip_instance_cache=True)
    files.mkdir("s3fs-bucket")
    files.put(f"{tree}/", "s3fs-bucket/tree", recursive=True)
    files.get("s3fs-bucket/tree/", str(tmp_path / "back"), recursive=True)
    assert same(tree, tmp_path / "back")
    with files.open("s3fs-bucket/written", "wb", block_size=5 << 20) as file:
        for _ in range(3):
            file.write(bytes(4 << 20))
    with files.open("s3fs-bucket/written", "rb") as file:
        file.seek(5_000_000)
        assert file.read(1000) == bytes(1000)
    files.mv("s3fs-bucket/written", "s3fs-bucket/moved")
    assert files.info("s3fs-bucket/moved")["size"] == 12 << 20
    files.rm("s3fs-bucket", recursive=True)
    assert not files.exists("s3fs-bucket")


def test_parquet_through_pyarrow(server: ServerProcess, s3: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import dataset
    from pyarrow.fs import S3FileSystem

    s3.create_bucket(Bucket="parquet")
    files = S3FileSystem(
        access_key=ACCESS,
        secret_key=SECRET,
        endpoint_override=urlsplit(server.endpoint).netloc,
        scheme="http",
        region=REGION,
    )
    table = pa.table(
        {
            "id": pa.array(range(300_000)),
            "word": pa.array([f"w{number % 977}" for number in range(300_000)]),
            "part": pa.array([number % 3 for number in range(300_000)]),
        }
    )
    pq.write_table(table, "parquet/one.parquet", filesystem=files, row_group_size=50_000)
    read = pq.read_table(
        "parquet/one.parquet", filesystem=files, columns=["id", "word"], filters=[("id", ">=", 290_000)]
    )
    assert read.num_rows == 10_000
    dataset.write_dataset(table, "parquet/set", format="parquet", filesystem=files, partitioning=["part"])
    again = dataset.dataset("parquet/set", format="parquet", filesystem=files, partitioning=["part"]).to_table()
    assert again.sort_by("id").column("id").to_pylist() == table.column("id").to_pylist()
