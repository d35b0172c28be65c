"""``heartguard demo``: a patient's heart, from a real recording, through the gateway and back."""

import secrets
import time
from collections.abc import Iterator
from typing import Annotated

import typer
from lxml import etree
from rich.console import Console
from rich.progress import Progress
from rich.syntax import Syntax
from rich.table import Table

from ..codec import decode
from ..models.auth_token import LoginRequest, LoginResponse, Profile, RegisterRequest, RegisterResponse
from ..models.timeseries import Point, QueryRequest, QueryResult, WriteRequest, WriteResult
from ..negotiation import Format
from ..settings import environment
from .client import GatewayClient, Refused
from .recording import Recording, load

BATCH = 100
"""Points a request: small, so that the progress bar has something to show."""

BARS = "▁▂▃▄▅▆▇█"


def demo(
    gateway: Annotated[
        str | None, typer.Option(help="Address of the gateway; the local one by default.", envvar="GATEWAY_URL")
    ] = None,
) -> None:
    """Sign a demo patient up, send five minutes of a real heart, read 1-minute means back in JSON and XML.

    Examples:

      heartguard demo

      heartguard demo --gateway https://heartguard.example.org
    """
    console = Console()
    client = GatewayClient(gateway or f"http://127.0.0.1:{environment().get('GATEWAY_PORT') or 5000}")
    try:
        _play(client, console)
    except Refused as problem:
        console.print(f"[red]{problem}[/red]", soft_wrap=True)
        raise typer.Exit(1) from None


def _play(client: GatewayClient, console: Console) -> None:
    patient = _sign_up(client)
    console.print(f"Signed up [bold]{patient.email}[/bold] (user {patient.id}, organization {patient.org_id})")
    recording = load()
    start = int(time.time()) // 60 * 60 - recording.seconds
    _send(client, list(points(recording, start, patient.id)), console)
    question = QueryRequest(
        measurement="heart_rate",
        range_start=rfc3339(start),
        range_stop=rfc3339(start + recording.seconds),
        fields=["bpm"],
        aggregate="mean",
        window="1m",
    )
    in_json = client.call("POST", "/timeseries/query", question, QueryResult)
    raw_xml = client.send("POST", "/timeseries/query", question, Format.XML)
    show(in_json, recording, console)
    console.print("\nThe same answer in XML:")
    console.print(Syntax(_pretty(raw_xml), "xml", background_color="default", word_wrap=True))
    if decode(raw_xml, Format.XML, QueryResult) != in_json:
        raise Refused("the answers in JSON and XML differ")
    console.print("[green]JSON and XML say the same.[/green]")


def _sign_up(client: GatewayClient) -> Profile:
    email, password = f"demo-{secrets.token_hex(6)}@heartguard.example", secrets.token_urlsafe(18)
    client.call("POST", "/auth/register", RegisterRequest(email=email, password=password), RegisterResponse)
    tokens = client.call("POST", "/auth/login", LoginRequest(email=email, password=password), LoginResponse)
    client.token = tokens.access_token
    return client.call("GET", "/auth/profile", None, Profile)


def points(recording: Recording, start: int, user_id: int) -> Iterator[Point]:
    """Heart rate at 1 Hz and every beat with the interval before it; ``start`` is in Unix seconds."""
    tags = {"user_id": str(user_id), "device": "demo"}
    for second, bpm in enumerate(recording.rates):
        yield Point(measurement="heart_rate", tags=tags, fields={"bpm": bpm}, timestamp=rfc3339(start + second))
    for offset, interval in zip(recording.beats, recording.rr_intervals, strict=True):
        fields: dict[str, float | bool | str] = {"rr_seconds": interval}
        yield Point(measurement="heart_beat", tags=tags, fields=fields, timestamp=rfc3339(start + offset))


def _send(client: GatewayClient, batch: list[Point], console: Console) -> None:
    with Progress(console=console) as progress:
        task = progress.add_task("Sending heart data", total=len(batch))
        for first in range(0, len(batch), BATCH):
            part = WriteRequest(points=batch[first : first + BATCH])
            result = client.call("POST", "/timeseries/write", part, WriteResult)
            progress.advance(task, result.inserted)


def show(result: QueryResult, recording: Recording, console: Console) -> None:
    """The 1-minute means as a table, the whole recording as a line of bars."""
    table = Table(title="Heart rate, 1-minute means")
    table.add_column("until (UTC)")
    table.add_column("mean", justify="right")
    table.add_column("beats a minute")
    for row in result.results:
        mean = float(row.value)
        table.add_row(row.time, f"{mean:.1f}", "█" * round(mean / 4))
    console.print(table)
    console.print(f"5 minutes, second by second:\n{sparkline(recording.rates, width=75)}")


def sparkline(values: list[float], width: int) -> str:
    """The values as ``width`` bars, each the mean of its share."""
    share = max(1, len(values) // width)
    means = [sum(part) / len(part) for part in (values[i : i + share] for i in range(0, len(values), share))]
    low, high = min(means), max(means)
    step = (high - low) / (len(BARS) - 1) or 1.0
    return "".join(BARS[round((mean - low) / step)] for mean in means)


def rfc3339(seconds: float) -> str:
    """Unix seconds as RFC 3339 in UTC, to the microsecond where there is a fraction."""
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{stamp}.{micros:06d}Z" if micros else f"{stamp}Z"


def _pretty(document: bytes) -> str:
    root = etree.fromstring(document, etree.XMLParser(resolve_entities=False, no_network=True))
    return etree.tostring(root, pretty_print=True, encoding="unicode").rstrip()
