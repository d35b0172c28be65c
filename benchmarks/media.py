"""Uploads: how fast beside writing the same bytes to the store directly, and how much memory they take.

The service has one core and one process; PostgreSQL and the clients share the other. The store is a directory, on the
disk where temporary files go (TMPDIR): both the service and the bare writing wait until the file is on it.
"""

import base64
import json
import os
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .context import Broken, Context
from .results import Row, Target
from .rig import (
    OTHER_CORE,
    SERVICE_CORE,
    Client,
    children,
    cpu_seconds,
    folder,
    free_port,
    on_core,
    postgres,
    service,
    together,
    token,
    two_cores,
)

MB = 1024 * 1024
FILE = 10 * MB
AT_ONCE = 16
THREADS = 4
BOUND_MB = 2 * THREADS * FILE / MB
"""What uploads may take in memory, however many there are at once: twice a file for each thread."""


def png(size: int) -> bytes:
    """A picture of so many bytes, most of them random."""
    head, end = struct.pack(">4sIIBBBBBI", b"IHDR", 1, 1, 8, 0, 0, 0, 0, 0), struct.pack(">I4sI", 0, b"IEND", 0)
    begin = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head
    packed = os.urandom(size - len(begin) - len(end) - 12)
    return begin + struct.pack(">I4s", len(packed), b"IDAT") + packed + bytes(4) + end


@dataclass(frozen=True)
class Media:
    """The running service: its port, the process that serves, and where its store is."""

    port: int
    worker: int
    where: Path

    def upload(self, client: Client, body: bytes) -> None:
        status, answer = client.post("/media/upload", body)
        if status != 201:
            raise Broken(f"upload was answered {status}: {answer[:300]!r}")

    def memory(self) -> int:
        """Resident bytes, now."""
        return self._status("VmRSS")

    def peak(self) -> int:
        """Resident bytes at the most since :meth:`forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.worker}/clear_refs").write_text("5")

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.worker}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@contextmanager
def media_service() -> Iterator[Media]:
    port = free_port()
    with ExitStack() as stack:
        where = stack.enter_context(folder())
        database = stack.enter_context(postgres(where))
        running = stack.enter_context(
            service(
                "media",
                port,
                DATABASE_URL=database.store.url_for("media"),
                HEARTGUARD_DATA=str(where / "data"),
                REDIS_URL="redis://127.0.0.1:1/0",
                AUDIT_SPOOL=str(where / "spool"),
                THREADS=str(THREADS),
            )
        )
        yield Media(port, children(running.pid)[0], where)


def run(context: Context) -> list[Row]:
    two_cores()
    content = png(FILE)
    said = {"file_name": "bench.png", "content_type": "image/png", "data_base64": base64.b64encode(content).decode()}
    with media_service() as media, on_core(OTHER_CORE):
        return [*memory(media, json.dumps(said).encode(), context), *speed(media, content, said, context)]


def memory(media: Media, body: bytes, context: Context) -> list[Row]:
    """How much the service grows with one upload, and with many at once. It comes first, before anything is warm."""
    client = Client(media.port, token())
    media.upload(client, json.dumps({**json.loads(body), "data_base64": base64.b64encode(png(100)).decode()}).encode())
    context.say("media: memory")
    one = growth(media, lambda: media.upload(client, body))
    many = growth(media, lambda: together([lambda: once(media, body) for _ in range(AT_ONCE)]))
    client.close()
    return [
        Row(
            benchmark="media", what="memory for a 10 MB upload in JSON", unit="MB",
            value=round(one / MB, 1), target=Target("≤", 3 * FILE / MB),
        ),
        Row(
            benchmark="media", what=f"memory for {AT_ONCE} of them at once", unit="MB",
            value=round(many / MB, 1), target=Target("≤", BOUND_MB), note=f"{THREADS} threads",
        ),
    ]  # fmt: skip


def growth(media: Media, work: Callable[[], None]) -> int:
    before = media.memory()
    media.forget_peak()
    work()
    return max(0, media.peak() - before)


def once(media: Media, body: bytes) -> None:
    client = Client(media.port, token())
    media.upload(client, body)
    client.close()


def speed(media: Media, content: bytes, said: dict[str, str], context: Context) -> list[Row]:
    """Megabytes a second by one client, in each format and directly, in turns."""
    rounds, each = context.choose((7, 5), (3, 2))
    bodies = {"JSON": json.dumps(said).encode(), "XML": as_xml(said), "form": as_form(content)}
    types = {"JSON": "application/json", "XML": "application/xml", "form": "multipart/form-data; boundary=bench"}
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in [*bodies, "directly"]}
    for number in range(1, rounds + 1):
        context.say(f"media: round {number} of {rounds}")
        for name, body in bodies.items():
            client = Client(media.port, token(), types[name])
            rates[name].append(rate(lambda client=client, body=body: media.upload(client, body), each, media.worker))  # type: ignore[misc]
            client.close()
        with on_core(SERVICE_CORE):
            rates["directly"].append(rate(lambda: write(media.where / "data", content), each, os.getpid()))
    middle = {name: statistics.median(rate for rate, _ in of) for name, of in rates.items()}
    cpu = {name: statistics.median(each for _, each in of) for name, of in rates.items()}
    ours = [
        Row(
            benchmark="media", what=f"10 MB uploads, {name}", unit="MB/s",
            value=round(middle[name], 1), details={"CPU ms": round(cpu[name], 1)},
        )
        for name in bodies
    ]  # fmt: skip
    return [
        *ours,
        Row(
            benchmark="media", what="the same bytes written directly", unit="MB/s",
            value=round(middle["directly"], 1), ours=False, ratio=round(middle["JSON"] / middle["directly"], 3),
            target=Target("≥", 0.5),
            details={"CPU ms": round(cpu["directly"], 1), "ratio by CPU": round(cpu["directly"] / cpu["JSON"], 3)},
            note="to the service's directory, by fsync",
        ),
    ]  # fmt: skip


def rate(work: Callable[[], None], times: int, worker: int) -> tuple[float, float]:
    """Megabytes a second, and the CPU milliseconds of the process that writes for each file."""
    spent, begun = cpu_seconds(worker), time.perf_counter()
    for _ in range(times):
        work()
    taken = time.perf_counter() - begun
    return times * FILE / MB / taken, (cpu_seconds(worker) - spent) / times * 1000


def write(where: Path, content: bytes) -> None:
    """As the local store does it: whole, durable, under its name in one step."""
    draft, final = where / "draft", where / "final"
    with draft.open("wb", buffering=0) as file:
        file.write(content)
        os.fsync(file.fileno())
    draft.rename(final)
    opened = os.open(where, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(opened)
    os.close(opened)
    final.unlink()


def as_xml(said: dict[str, str]) -> bytes:
    return f"<MediaUpload>{''.join(f'<{name}>{value}</{name}>' for name, value in said.items())}</MediaUpload>".encode()


def as_form(content: bytes) -> bytes:
    head = 'Content-Disposition: form-data; name="file"; filename="bench.png"\r\nContent-Type: image/png'
    return b"--bench\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n--bench--\r\n"
