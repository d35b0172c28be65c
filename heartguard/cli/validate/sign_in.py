"""Who runs the validation, and whether it can begin."""

import sys
from dataclasses import dataclass

import jwt
import typer

from ...codec import decode, encode
from ...errors import ServiceError
from ...models.auth_token import LoginRequest, LoginResponse
from ...models.common import Health
from ...negotiation import Format
from ...settings import load, text, variable
from ..client import Exchange, GatewayClient, NoAnswer, reason
from ..first_admin import FirstAdmin
from .runner import Runner

JSON = {"Accept": Format.JSON.value, "Content-Type": Format.JSON.value}


class CannotStart(Exception):
    """Nothing could be tried; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Given(FirstAdmin):
    """What the environment says; ``password`` is for whoever is named."""

    password: str | None = variable("VALIDATE_PASSWORD", text, optional=True)


@dataclass(frozen=True)
class Credentials:
    email: str
    password: str


def credentials(email: str | None) -> Credentials:
    """The given ones, or those of the first admin. Asks for a password where there is a terminal."""
    given = load(Given)
    who = email or given.admin_email
    password = given.password or (None if email else given.admin_password)
    if password:
        return Credentials(who, password)
    if not sys.stdin.isatty():
        raise CannotStart(
            f"There is no password for {who}: set VALIDATE_PASSWORD or VALIDATE_PASSWORD_FILE, or,"
            " for the first admin, BOOTSTRAP_ADMIN_PASSWORD (in .env)."
        )
    return Credentials(who, typer.prompt(f"Password of {who}", hide_input=True))


def sign_in(runner: Runner, client: GatewayClient, who: Credentials) -> None:
    """Get the admin's token; without one where the auth service is away, which then is a finding, not the end.

    Raises :class:`CannotStart`.
    """
    _require_gateway(client)
    body = _login(who)
    try:
        got = runner.send("POST", "/auth/login", body, JSON)
    except NoAnswer:
        return
    if got.status in {502, 503, 504}:
        return
    if got.status != 200:
        raise CannotStart(_refusal(who, got))
    token = _pair(got, client).access_token
    claims = jwt.decode(token, options={"verify_signature": False})  # the services verify it
    runner.scene.token, runner.scene.org_id = token, int(claims["org_id"])
    if claims["role"] != "admin":
        raise CannotStart(f"{who.email} is no admin but a {claims['role']}, who may not try every operation.")


def _login(who: Credentials) -> bytes:
    return encode(LoginRequest(email=who.email, password=who.password), Format.JSON)


def _pair(got: Exchange, client: GatewayClient) -> LoginResponse:
    try:
        return decode(got.body, Format.JSON, LoginResponse)
    except ServiceError:
        raise CannotStart(f"{client.url}/auth/login answers, but not as the contract says.") from None


def _require_gateway(client: GatewayClient) -> None:
    try:
        got = client.exchange("GET", "/gateway/health", None, {"Accept": Format.JSON.value})
        decode(got.body, Format.JSON, Health)
    except NoAnswer as problem:
        raise CannotStart(
            f"There is no answer from {client.url}. Is HeartGuard running there? See heartguard status; set"
            f" GATEWAY_URL or GATEWAY_HOST for another address.\n{str(problem).splitlines()[-1]}"
        ) from None
    except ServiceError:
        raise CannotStart(f"What answers at {client.url} is no HeartGuard gateway. Set GATEWAY_URL.") from None


def _refusal(who: Credentials, got: Exchange) -> str:
    said = reason(got.body, Format.JSON)
    if got.status == 401:
        return (
            f"{who.email} cannot sign in: {said}.\nGive the right password in VALIDATE_PASSWORD, or another admin"
            " with --email; the first admin's password was changed if that of .env no longer does."
        )
    if got.status == 429:
        return (
            f"{who.email} cannot sign in yet: {said}.\nTry again in {got.headers.get('Retry-After', 'some')} seconds."
        )
    return f"{who.email} cannot sign in: {got.status}, {said}."
