"""``heartguard validate``: its options, and how it ends."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ...services import SERVICES
from ...settings import SettingsError, environment
from ..client import GatewayClient
from ..stopping import INTERRUPTED, Stopped, stopped_by_signals
from .operations import Operation, operations
from .report import Report, show
from .runner import Runner
from .sign_in import CannotStart, Credentials, credentials, sign_in
from .steps import STEPS, Step

CANNOT_START = 2
WIDTH = 140
"""Of the table where it does not go to a terminal."""


def validate(
    gateway: Annotated[
        str | None,
        typer.Option(help="Address of the gateway; else GATEWAY_HOST and GATEWAY_PORT.", envvar="GATEWAY_URL"),
    ] = None,
    email: Annotated[
        str | None, typer.Option(help="Of an admin; the first admin, BOOTSTRAP_ADMIN_EMAIL, by default.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write the result to this file.", dir_okay=False)] = None,
) -> None:
    """Try every operation of a deployment in JSON and in XML, and say what is not well.

    Signs in as an admin: with --email and VALIDATE_PASSWORD (or the file that VALIDATE_PASSWORD_FILE names, or what
    is typed at the prompt), else with BOOTSTRAP_ADMIN_EMAIL and BOOTSTRAP_ADMIN_PASSWORD of .env.

    Of the time series it asks for 100,000 values at once, and compares them with what it has written.

    Works with people, buckets and files of its own, and removes them, on Ctrl-C too. What others see afterwards is
    what the audit trail has recorded. It waits where the rate limit says so, and takes up to two minutes.

    Exits with 0 where all is well, 1 where something is not, 2 where it could not start, 130 on Ctrl-C.

    Examples:

      heartguard validate

      GATEWAY_URL=https://heartguard.example.org heartguard validate --email ana@hg.io

      GATEWAY_HOST=10.0.0.7 heartguard validate --json result.json
    """
    console, errors = Console(highlight=False, soft_wrap=False), Console(stderr=True, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    try:
        if json is not None and not json.absolute().parent.is_dir():
            raise CannotStart(f"There is no folder {json.absolute().parent} to write {json.name} into.")
        client = GatewayClient(address(gateway, environment()))
        who = credentials(email)
        with stopped_by_signals(client.stop):
            report = _run(client, who, errors)
    except (CannotStart, SettingsError) as problem:
        errors.print(str(problem), style="red", markup=False)
        raise typer.Exit(CANNOT_START) from None
    show(report, console)
    if json is not None:
        json.write_bytes(report.to_json())
    raise typer.Exit(INTERRUPTED if report.interrupted else 0 if report.passed else 1)


def address(url: str | None, environ: dict[str, str]) -> str:
    """Of the gateway: the given URL, or GATEWAY_HOST, which may name a port, or this machine."""
    if url := url or environ.get("GATEWAY_URL"):
        return url if "://" in url else f"http://{url}"
    host, port = environ.get("GATEWAY_HOST") or "127.0.0.1", environ.get("GATEWAY_PORT") or SERVICES["gateway"].port
    if "://" in host:
        return host
    return f"http://{host}" if urlsplit(f"//{host}").port else f"http://{host}:{port}"


def planned() -> list[tuple[Step, Operation]]:
    """The steps whose service is installed, each with its operation."""
    published = operations()
    unknown = Operation(
        name="GET /gateway/nonsense", method="GET", path="/gateway/nonsense", service="gateway",
        public=True, request=None, answers={}, produces=None,
    )  # fmt: skip
    published[unknown.name] = unknown
    return [(step, published[step.operation]) for step in STEPS if step.operation in published]


def _run(client: GatewayClient, who: Credentials, console: Console) -> Report:
    report = Report(gateway=client.url, started_at=datetime.now(UTC))
    begun = time.monotonic()
    columns = (MofNCompleteColumn(), BarColumn(20), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        steps = planned()
        task = progress.add_task("signing in", total=len(steps))
        runner = Runner(client, lambda words: progress.update(task, description=words))
        try:
            sign_in(runner, client, who)
            for step, operation in steps:
                progress.update(task, description=operation.name)
                report.operations.extend(runner.run(step, operation))
                progress.advance(task)
        except Stopped:
            report.interrupted = True
        finally:
            progress.update(task, description="cleaning up")
            report.left_behind = runner.clean_up()
    report.seconds = round(time.monotonic() - begun, 1)
    return report
