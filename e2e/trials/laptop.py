"""A developer on a laptop: a bare Debian, made with debootstrap, in which somebody who is not root unpacks S4 and
follows "Start".

The network, and what it trusts, is this machine's: packages come from the registries that it uses. The server's ports
are those of the text, 9000 and 9001, so nothing else may have them.
"""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

from trials import debian
from trials.log import Machine, Trial
from trials.texts import Texts, filled

HOME = "/home/dev/s4"


def first_server(trial: Trial, developer: Machine, admin: Machine) -> tuple[str, str]:
    """`make run`, and what it names installed until it serves: (the text's export of PATH, what the server said)."""
    trial.does(developer, "make run", "make: command not found", status=127)
    trial.does(admin, "apt-get update -qq && apt-get install -y -qq --no-install-recommends make", "", quiet=True)
    text = ""
    for attempt in range(6):
        server = developer.start("make run", f"make-run-{attempt}")
        while server.process.poll() is None and " at http" not in server.text():
            time.sleep(0.2)
        text = server.text()
        named = re.search(r"^ *((?:apt-get|apt) install [\w.+ -]+)$", text, re.M)
        if server.process.poll() is None or named is None:
            break
        trial.sees(server, "make run", re.escape(named[1]))
        trial.does(admin, f"{named[1].replace('install', 'install -y -qq --no-install-recommends', 1)}", "", quiet=True)
    trial.sees(server, "make run", r"(?s)root access key.*first object put and got back")
    exported = re.search(r"^\s*(export PATH=.*)$", text, re.M)
    return exported[1] if exported else "", text


def follow(suite: str, cache: Path, here: Path, texts: Texts) -> Trial:
    trial = Trial(f"A developer on a laptop: {debian.CALLED[suite]}, bare")
    with debian.opened(suite, cache, here, HOME) as (developer, admin):
        exported, text = first_server(trial, developer, admin)
        keys = re.findall(r"root (?:access|secret) key:? +(\S+)", text)
        if len(keys) < 2:
            trial.does(developer, "cat data/root.json", "access_key")
            return trial
        trial.does(
            admin,
            "apt-get install -y -qq --no-install-recommends awscli s3cmd python3-boto3 curl pipx zsh bash-completion",
            "",
            quiet=True,
            limit_s=1500,
        )
        export, region, *rest = texts.lines("export AWS_ACCESS_KEY_ID")
        logged_in = (
            filled(
                export,
                [
                    ("AWS_ACCESS_KEY_ID=...", f"AWS_ACCESS_KEY_ID={keys[0]}"),
                    ("AWS_SECRET_ACCESS_KEY=...", f"AWS_SECRET_ACCESS_KEY={keys[1]}"),
                ],
            )
            + f"; {region}"
        )
        aws = f"{logged_in}; unset REQUESTS_CA_BUNDLE;"
        for line, says in zip(rest, ("make_bucket: first", "upload: ./README.md to s3://first/README.md"), strict=True):
            trial.does(developer, f"{aws} {line}", says)
        for part in (mistakes, sdk_defaults, looking_after, accidents, pipx_and_completion):
            part(trial, developer, admin, texts, {"s4": f"{exported};", "aws": aws, "suite": suite})
    return trial


def mistakes(trial: Trial, developer: Machine, admin: Machine, texts: Texts, said: dict[str, str]) -> None:
    """While the server runs."""
    s4, aws = said["s4"], said["aws"]
    trial.does(developer, f"{s4} {texts.said('s4 admin --dir DIR status').replace('DIR', './data')}", r"^health +ok")
    trial.does(developer, f"{s4} s4 admin --dir ./data statis", "status", status=2)
    trial.does(developer, f"{s4} s4 sever ./data", "server", status=2)
    trial.does(developer, f"{s4} s4 server ./data --lisen :9100", "--listen", status=2)
    trial.does(developer, f"{s4} s4 admin status --dir ./dta", "dta", status=1)
    trial.does(
        developer, f"{s4} s4 admin --dir ./data --endpoint http://127.0.0.1:9000 status", "9000.*(S3|admin)", status=1
    )
    trial.does(
        developer, f"{s4} s4 admin --dir ./data --endpoint https://127.0.0.1:9001 status", "(?i)tls|https", status=1
    )
    trial.does(developer, f"{s4} s4 admin --dir ./data --endpoint 127.0.0.1:9009 status", "9009", status=1)
    trial.does(developer, f"{s4} s4 admin status", "(?i)key|--dir", status=1)
    trial.does(
        developer,
        f"{s4} s4 server ./data --listen 127.0.0.1:9100 --admin-listen 127.0.0.1:9101",
        "in use by another s4 server",
        status=(1, 2),
    )
    trial.does(
        developer, f"{s4} s4 server ./other --admin-listen 127.0.0.1:9101", "9000.*in use|in use.*9000", status=(1, 2)
    )
    trial.does(developer, "ls -d other 2>&1", "No such file", status=2)
    trial.does(
        developer,
        f"{s4} s4 server README.md --listen 127.0.0.1:9100 --admin-listen 127.0.0.1:9101",
        "README.md",
        status=(1, 2),
    )
    trial.does(
        developer,
        f"{s4} s4 server /etc/s4data --listen 127.0.0.1:9100 --admin-listen 127.0.0.1:9101",
        "/etc/s4data.*[Pp]ermission",
        status=(1, 2),
    )
    trial.does(developer, f"{s4} S4_LISEN=:9100 s4 server /proc/none", "S4_LISEN", status=(1, 2))
    _mistakes_of_clients(trial, developer, aws)


def _mistakes_of_clients(trial: Trial, developer: Machine, aws: str) -> None:
    trial.does(developer, f"{aws} aws --endpoint-url http://127.0.0.1:9001 s3 ls", "9000|S3", status=(1, 2, 254, 255))
    trial.does(developer, f"{aws} aws --endpoint-url https://127.0.0.1:9000 s3 ls", "SSL|TLS", status=(1, 2, 254, 255))
    trial.does(
        developer,
        f"{aws} AWS_SECRET_ACCESS_KEY=wrong aws --endpoint-url http://127.0.0.1:9000 s3 ls",
        "SignatureDoesNotMatch",
        status=(1, 2, 254, 255),
    )
    trial.does(
        developer,
        f"{aws} AWS_ACCESS_KEY_ID=wrong aws --endpoint-url http://127.0.0.1:9000 s3 ls",
        "InvalidAccessKeyId",
        status=(1, 2, 254, 255),
    )
    trial.does(
        developer,
        f"{aws} aws --endpoint-url http://127.0.0.1:9000 --region eu-west-1 s3 ls",
        "first|region|us-east-1",
        status=(0, 1, 2, 254, 255),
    )
    trial.does(
        developer,
        f"{aws} aws --endpoint-url http://127.0.0.1:9000 s3 mb s3://First",
        "InvalidBucketName|Invalid bucket name",
        status=(1, 2, 254, 255),
    )
    trial.does(
        developer,
        f"{aws} aws --endpoint-url http://127.0.0.1:9000 s3 rb s3://first",
        "BucketNotEmpty",
        status=(1, 2, 254, 255),
    )
    trial.does(developer, "curl -s http://127.0.0.1:9000/first/", "<Code>AccessDenied</Code>")
    trial.does(developer, "curl -sk https://127.0.0.1:9000/; echo $?", "35")
    trial.does(developer, "curl -s http://127.0.0.1:9000/healthz", "ok")


BOTO3 = """
import boto3, urllib.request
s3 = boto3.client("s3", endpoint_url="http://127.0.0.1:9000")
s3.upload_file("/home/dev/large", "first", "large")
print("parts", s3.head_object(Bucket="first", Key="large")["ETag"])
for name, asked in (("get_object", {"Key": "README.md"}), ("list_objects_v2", {"Prefix": "REA"}), ("head_object", {"Key": "README.md"})):
    url = s3.generate_presigned_url(name, Params={"Bucket": "first", **asked})
    print(name, urllib.request.urlopen(urllib.request.Request(url, method="HEAD" if name == "head_object" else "GET")).status)
of = {"Bucket": "first", "Key": "put by a link", "ContentType": "text/plain"}
url = s3.generate_presigned_url("put_object", Params=of)
print("put", urllib.request.urlopen(urllib.request.Request(url, b"x", {"Content-Type": "text/plain"}, method="PUT")).status)
print("and", [one["Key"] for one in s3.list_objects_v2(Bucket="first")["Contents"]])
print("all done")
"""


def sdk_defaults(trial: Trial, developer: Machine, admin: Machine, texts: Texts, said: dict[str, str]) -> None:
    """boto3, aws and s3cmd as they come: presigned links, puts, gets, listings, parts, sync."""
    aws = f'{said["aws"]} aws() {{ command aws --endpoint-url http://127.0.0.1:9000 "$@"; }};'
    trial.does(
        developer,
        "head -c 20000000 /dev/urandom > ~/large; mkdir -p ~/tree/a; echo 1 > ~/tree/a/1; echo 2 > ~/tree/2",
        "",
        quiet=True,
    )
    trial.does(
        developer,
        f"{aws} aws s3 cp ~/large s3://first/aws && aws s3 cp s3://first/aws - | cmp - ~/large && echo the same",
        "the same",
    )
    trial.does(
        developer,
        f'{aws} curl -sf -o ~/by-link "$(aws s3 presign s3://first/README.md)" && head -n 1 ~/by-link',
        "^# S4",
    )
    trial.does(
        developer,
        f"{aws} aws s3 sync ~/tree s3://first/tree && aws s3 sync s3://first/tree ~/back && diff -r ~/tree ~/back && echo the same",
        "the same",
    )
    trial.does(developer, f"{aws} aws s3 ls --recursive s3://first/tree/", "tree/a/1")
    trial.does(developer, f"{said['aws']} cat > ~/try.py <<'E'\n{BOTO3}\nE\npython3 ~/try.py", "all done")
    trial.does(
        developer,
        f"{said['aws']} printf '[default]\\nhost_base = 127.0.0.1:9000\\nhost_bucket = 127.0.0.1:9000\\nuse_https = False\\n' > ~/.s3cfg; "
        "s3cmd put ~/large s3://first/s3cmd && s3cmd get --force s3://first/s3cmd ~/got && cmp ~/got ~/large && s3cmd ls s3://first/tree/ && echo the same",
        "the same",
    )
    trial.does(
        developer,
        f"{said['aws']} s3cmd sync ~/tree/ s3://first/synced/ && s3cmd ls -r s3://first/synced/",
        "synced/a/1",
    )
    trial.does(
        developer,
        f"{said['aws']} curl -sf -o ~/by-link \"$(s3cmd signurl s3://first/README.md +600 | sed 's#^https:#http:#')\" && head -n 1 ~/by-link",
        "^# S4",
    )


def looking_after(trial: Trial, developer: Machine, admin: Machine, texts: Texts, said: dict[str, str]) -> None:
    """The block of "Running it", and the guides of keys."""
    expected = {
        "status": "^health",
        "user add": "secret key",
        "du": "first",
        "verify": "0 problems",
        "drives": "online",
        "scrub": "0 shards missing",
    }
    for line in texts.lines("s4 admin --dir DIR status"):
        words = next((words for name, words in expected.items() if f" {name}" in line), ".")
        trial.does(developer, f"{said['s4']} {line.replace('DIR', './data', 1)}", words)
    for line, words in (
        ("user add ana --grant Writer:photos-*", "EntityAlreadyExists|exists"),
        ("user disable ana", "ana is disabled"),
        ("user enable ana", "ana is enabled"),
        ("user enable anna", "anna cannot be found"),
        ("user add bob --grant Writr", "Reader, Writer"),
        ("bucket public first", "."),
        ("bucket private first", "."),
        ("quota first 10GB", "first may hold|unit|GiB"),
        ("quota firts 10GiB", "firts|no such bucket|does not exist"),
        ("policy explain s3:GetObject first/README.md", "^no: s3:GetObject"),
        ("jobs", "^JOB +EVERY"),
        ("user rate ana --requests 50", "50"),
        ("bucket rate first --requests 100", "100"),
        ("drives add /mnt/d2", "one directory|several drives"),
        ("drives drain 1", "one directory"),
        ("cluster status", "no cluster"),
        ("renames", "^ID +BUCKET"),
        ("log --access all", "logged from now on"),
        ("completion bash", "completion"),
    ):
        trial.does(developer, f"{said['s4']} s4 admin --dir ./data {line}", words, status=(0, 1, 2, 3))


def accidents(trial: Trial, developer: Machine, admin: Machine, texts: Texts, said: dict[str, str]) -> None:
    """Stopped, started again, keys lost, a store of a newer version."""
    s4, server = said["s4"], developer.started[-1]
    trial.note("Ctrl-C")
    trial.ends(server, "make run", signal.SIGINT, status=(0, 2, 130))
    trial.does(
        developer, f"{s4} s4 admin --dir ./data status", "(?i)refused|not running|does not answer|nobody", status=1
    )

    def again(name: str, expected: str, line: str = "s4 server ./data") -> None:
        made = developer.start(
            f"env {' '.join(s4.removeprefix('export ').rstrip(';').split())} {line}", f"again-{name}"
        )
        trial.sees(made, f"{line} ({name})", expected)
        made.end()

    again("as before", "S3 at http")
    trial.does(developer, "mv data/master.key lost.key", "", quiet=True)
    again("master.key is lost", "master.key is gone.*put the file back")
    trial.does(developer, "mv lost.key data/master.key; chmod 644 data/master.key", "", quiet=True)
    again("master.key is open to all", "(?s)master.key.*chmod")
    trial.does(developer, "chmod 600 data/master.key; mv data/root.json root.json.lost", "", quiet=True)
    again("root.json is lost", "root access key")
    trial.does(developer, 'sed -i.kept \'s/"format": *[0-9]*/"format":3/\' data/s4.json; cat data/s4.json', "format")
    again("the store is a newer one's", "(?i)newer|format 3")
    trial.does(developer, "mv data/s4.json.kept data/s4.json", "", quiet=True)
    again("put back", "S3 at http")
    again("an option that is none", "--erasure", "s4 server ./data --erasure 2+1")


COMPLETE = (
    "complete -p s4; COMP_WORDS=(s4 admin st); COMP_CWORD=2; COMP_LINE='s4 admin st'; COMP_POINT=${#COMP_LINE}; "
    "f=$(complete -p s4 | sed 's/.*-F \\([^ ]*\\).*/\\1/'); $f s4 st admin; echo \"${COMPREPLY[@]}\""
)

# A terminal of its own, in which somebody types and presses Tab.
COMPLETE_ZSH = r"""zmodload zsh/zpty
zpty typed zsh -f -i
says() { local more; for ((i = 0; i < 100; i++)); do while zpty -r -t typed more; do print -rn -- "$more"; done; sleep 0.1; done }
zpty -w typed 'fpath=(~ $fpath); autoload -Uz compinit; compinit -u -D; echo ready'
sleep 5
zpty -w -n typed $'s4 admin cluster st\t\t'
says
zpty -d typed
"""


def pipx_and_completion(trial: Trial, developer: Machine, admin: Machine, texts: Texts, said: dict[str, str]) -> None:
    trial.does(developer, texts.line("pipx install ."), "installed package s4", limit_s=1500)
    trial.does(developer, "~/.local/bin/s4 --version", "0.8")
    way = "export PATH=$HOME/.local/bin:$PATH;"
    home = developer.here / said["suite"] / "home/dev"
    (home / "complete.bash").write_text(texts.line('eval "$(s4 completion bash)"') + "; " + COMPLETE)
    trial.does(developer, f"{way} bash -i -c '. ~/complete.bash'", "status")
    texts.said("s4 completion zsh > _s4")
    (home / "complete.zsh").write_text(COMPLETE_ZSH)
    trial.does(developer, f"{way} s4 completion zsh > ~/_s4; zsh ~/complete.zsh", "stop-check")
