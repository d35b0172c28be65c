"""The command: who plays the admin, and what is left behind."""

import secrets
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console

from ...settings import SettingsError, boolean, integer, load, text, variable
from ..client import GatewayClient, Refused
from ..first_admin import FirstAdmin
from ..stopping import INTERRUPTED, Stopped, stopped_by_signals
from .company import Company, Person, found, join
from .story import play


@dataclass(frozen=True, kw_only=True)
class Local(FirstAdmin):
    """What the local stack's ``.env`` says of its gateway and its first admin; ``password`` is for another admin."""

    port: int = variable("GATEWAY_PORT", integer(1, 65535), "5000")
    password: str | None = variable("DEMO_PASSWORD", text, optional=True)
    org_signup: bool = variable("ORG_SIGNUP", boolean, "false")

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def demo(
    gateway: Annotated[
        str | None, typer.Option(help="Address of the gateway; the local one by default.", envvar="GATEWAY_URL")
    ] = None,
    email: Annotated[
        str | None,
        typer.Option(
            help="Sign in as this admin; the password is read from DEMO_PASSWORD (or DEMO_PASSWORD_FILE), or asked for."
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the people and their data; the password made for them is shown.")
    ] = False,
) -> None:
    """Play a day in a clinic: who sees whose heart data, who is refused, and what the audit trail knows of it.

    A manager, a clinician and two patients are signed up; the patients send five minutes of a real heart, which is
    read back in JSON and in XML. At the end the people and their data are deleted, unless --keep is given: the
    audit trail stays. Where ORG_SIGNUP=true, and no --email is given, the demo makes an organization of its own,
    which stays with its admin; else an admin signs in (on the local stack the first one, by .env) and the demo
    plays in that admin's organization. It can be run again and again; it waits where the gateway's limits say so.
    Ctrl-C ends it once the request under way is answered; it still deletes what it has made.

    Examples:

      heartguard demo

      heartguard demo --keep

      heartguard demo --gateway https://heartguard.example.org --email admin@example.org
    """
    console = Console()
    try:
        _run(gateway, email, keep, console)
    except (Refused, SettingsError) as problem:
        console.print(str(problem), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except Stopped:
        console.print("Interrupted.", style="yellow")
        raise typer.Exit(INTERRUPTED) from None


def _run(gateway: str | None, email: str | None, keep: bool, console: Console) -> None:
    local = load(Local)
    nobody = GatewayClient(
        gateway or local.gateway,
        prefix=f"demo-{secrets.token_hex(4)}",
        waiting=lambda seconds: console.print(f"[dim]The gateway's limit is reached: waiting {seconds} s.[/dim]"),
    )
    named = None if email is None else (email, local.password or _asked(email))
    with stopped_by_signals(nobody.stop):
        admin = join(nobody, *named) if named else _admin(nobody, local)
        with closing(Company(nobody, admin, console, keep=keep)) as company:
            play(company)
    if company.left:
        raise typer.Exit(1)


def _admin(nobody: GatewayClient, local: Local) -> Person:
    """Whoever signs the others up where nobody is named. The first admin's password goes to the local gateway only."""
    if nobody.url != local.gateway:
        return _founder(nobody)
    if local.org_signup:
        return found(nobody)
    if local.admin_password is None:
        raise Refused("There is no BOOTSTRAP_ADMIN_PASSWORD: start the stack first (heartguard up), or give --email.")
    return join(nobody, local.admin_email, local.admin_password)


def _founder(nobody: GatewayClient) -> Person:
    try:
        return found(nobody)
    except Refused as refused:
        if refused.status != 403:
            raise
        raise Refused("That gateway lets nobody make an organization: sign in as an admin, with --email.") from None


def _asked(email: str) -> str:
    return str(typer.prompt(f"Password of {email}", hide_input=True, err=True))
