"""Real receivers as processes that can be killed: NATS with JetStream, Kafka, and a webhook that writes what it gets
to a file."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import aiokafka
import nats
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from addresses import free_ports, own_address
from process import wait_until

TOOLS = Path(__file__).parents[2] / ".tools"
Arrived = tuple[str, dict[str, Any]]  # (id of the header, record)

_HOOK = """
import os, sys
from aiohttp import web

async def take(request):
    body = await request.text()
    line = request.headers["x-s4-event-id"] + " " + request.headers.get("Authorization", "-").replace(" ", "_") + " " + body + "\\n"
    file = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)
    return web.Response(status=204)

app = web.Application()
app.router.add_post("/hook", take)
web.run_app(app, host=sys.argv[3], port=int(sys.argv[1]), print=None)
"""


class Receiver:
    """`settings` is what the file of --receivers says of it."""

    name = ""
    settings: dict[str, Any]

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        self.host = own_address()
        self.port, self.second_port = free_ports(2, self.host)
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        wait_until(self._listens, f"{self.name} listens")

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def arrived(self) -> list[Arrived]:
        raise NotImplementedError


class Webhook(Receiver):
    name = "hook"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        (directory / "token").write_text("a-secret\n")
        self.settings = {"webhook": f"http://{self.host}:{self.port}/hook", "token": str(directory / "token")}

    def command(self) -> list[str]:
        return [sys.executable, "-c", _HOOK, str(self.port), str(self.directory / "got"), self.host]

    def arrived(self) -> list[Arrived]:
        got = self.directory / "got"
        lines = [line.split(" ", 2) for line in got.read_text().splitlines()] if got.exists() else []
        assert all(bearer == "Bearer_a-secret" for _, bearer, _ in lines)
        return [(name, json.loads(body)["Records"][0]) for name, _, body in lines]


class Nats(Receiver):
    name = "bus"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.settings = {"nats": f"nats://{self.host}:{self.port}", "subject": "s4.events"}

    @staticmethod
    def program() -> str | None:
        own = TOOLS / "nats-server"
        return str(own) if own.exists() else shutil.which("nats-server")

    def command(self) -> list[str]:
        return [str(self.program()), "-a", self.host, "-p", str(self.port), "-js", "-sd", str(self.directory / "data")]

    def start(self) -> None:
        super().start()

        async def stream() -> None:
            client = await nats.connect(self.settings["nats"])
            # without a window in which it drops what it has already: duplicates are to be seen
            await client.jetstream().add_stream(name="events", subjects=["s4.>"], duplicate_window=0.1)
            await client.close()

        asyncio.run(stream())

    def arrived(self) -> list[Arrived]:
        async def read() -> list[Arrived]:
            client = await nats.connect(self.settings["nats"])
            stream = client.jetstream()
            count = (await stream.stream_info("events")).state.messages
            found = []
            for number in range(1, count + 1):
                message = await stream.get_msg("events", number)
                assert message.headers is not None
                assert message.data is not None
                assert message.headers["Nats-Msg-Id"] == message.headers["x-s4-event-id"]
                found.append((message.headers["x-s4-event-id"], json.loads(message.data)["Records"][0]))
            await client.close()
            return found

        return asyncio.run(read())


class Kafka(Receiver):
    name = "log"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.settings = {"kafka": f"{self.host}:{self.port}", "topic": "s4-events"}
        (directory / "server.properties").write_text(
            f"process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@{self.host}:{self.second_port}\n"
            f"listeners=PLAINTEXT://{self.host}:{self.port},CONTROLLER://{self.host}:{self.second_port}\ncontroller.listener.names=CONTROLLER\n"
            f"log.dirs={directory / 'data'}\noffsets.topic.replication.factor=1\nnum.partitions=3\nauto.create.topics.enable=false\n"
        )
        self._made = False

    @staticmethod
    def program() -> str | None:
        return shutil.which("java") if (TOOLS / "kafka").is_dir() else None

    def _java(self, main: str, *arguments: str) -> list[str]:
        quick = [
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
        ]  # it lives for seconds: most of its time went into optimizing itself
        return [str(self.program()), "-Xmx256m", *quick, "-cp", f"{TOOLS / 'kafka'}/*", main, *arguments]

    def command(self) -> list[str]:
        return self._java("kafka.Kafka", str(self.directory / "server.properties"))

    def start(self) -> None:
        properties = str(self.directory / "server.properties")
        if not self._made:
            subprocess.run(
                self._java("kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", properties),
                check=True,
                capture_output=True,
            )
        super().start()
        wait_until(lambda: asyncio.run(self._answers()), "Kafka answers")
        self._made = True

    async def _answers(self) -> bool:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings["kafka"])
        try:
            await admin.start()
            if not self._made:
                await admin.create_topics([NewTopic("s4-events", 3, 1)])
        except KafkaError:
            return False
        finally:
            await admin.close()
        return True

    def arrived(self) -> list[Arrived]:
        """In order within each of the topic's partitions."""

        async def read() -> list[Arrived]:
            consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=self.settings["kafka"], auto_offset_reset="earliest")
            await consumer.start()
            places = [aiokafka.TopicPartition("s4-events", number) for number in range(3)]
            consumer.assign(places)
            ends, found = await consumer.end_offsets(places), []
            while any([await consumer.position(place) < end for place, end in ends.items()]):
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    for one in batch:
                        record = json.loads(one.value)["Records"][0]
                        assert one.key.decode() == record["s3"]["bucket"]["name"] + "/" + unquote_plus(
                            record["s3"]["object"]["key"]
                        )
                        found.append((dict(one.headers)["x-s4-event-id"].decode(), record))
            await consumer.stop()
            return found

        return asyncio.run(read())


def said(receivers: list[Receiver], path: Path) -> str:
    """Write the file of --receivers; JSON is YAML."""
    path.write_text(json.dumps({one.name: one.settings for one in receivers}))
    os.sync()
    return str(path)


KINDS: dict[str, Callable[[Path], Receiver]] = {"webhook": Webhook, "NATS": Nats, "Kafka": Kafka}
