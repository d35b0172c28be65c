"""The people of the demo: signed up and in, and gone at the end."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Console

from ...models.auth_token import LoginRequest, LoginResponse, Profile, RegisterRequest, RegisterResponse
from ...models.base import Role, UnsetType
from ...models.timeseries import Bucket, BucketCreate
from ..client import GatewayClient, Refused
from ..stopping import Stopped
from .trail import Chronicle

ORGANIZATION = "HeartGuard demo clinic"
BROKEN_OFF = "perhaps; look, and remove it by hand"


@dataclass(frozen=True)
class Person:
    """Somebody who is signed in."""

    name: str
    email: str
    id: int
    org_id: int
    signed_in_at: datetime
    """By the server's clock."""
    client: GatewayClient


def join(nobody: GatewayClient, email: str, password: str) -> Person:
    """Sign in as an admin there is."""
    try:
        client = nobody.signed_in(_token(nobody, email, password))
    except Refused as refused:
        if refused.status != 401:
            raise
        raise Refused(
            f"{refused}\nIs {email} the admin, with that password? Another can be named with --email."
        ) from None
    admin = _person("admin", client)
    if client.call("GET", "/auth/profile", None, Profile).role != "admin":
        raise Refused(f"{email} is no admin, and can sign nobody up")
    return admin


def found(nobody: GatewayClient) -> Person:
    """Make an organization, and sign in as its first admin."""
    email, password = _address("admin"), secrets.token_urlsafe(18)
    request = RegisterRequest(email=email, password=password, role="admin", organization_name=ORGANIZATION)
    nobody.call("POST", "/auth/register", request, RegisterResponse)
    return _person("admin", nobody.signed_in(_token(nobody, email, password)))


@dataclass
class Company:
    """The admin, and whom the admin has signed up; all but the admin are gone after :meth:`close`, unless kept."""

    nobody: GatewayClient
    admin: Person
    console: Console
    keep: bool = False
    chronicle: Chronicle = field(default_factory=Chronicle)
    bucket: str = ""
    emails: dict[int, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    """By the id as the audit trail writes it."""
    left: list[str] = field(default_factory=list)
    """What is, or may be, still there at the end."""
    _password: str = field(default_factory=lambda: secrets.token_urlsafe(18), repr=False)

    def __post_init__(self) -> None:
        self.names[str(self.admin.id)] = self.admin.name

    def make_bucket(self) -> None:
        """A bucket for the demo's heart data, so that none of it stays."""
        name = f"org_{self.admin.org_id}_demo_{secrets.token_hex(4)}"
        request = BucketCreate(bucket=name, description="heartguard demo")
        with self._making(f"the bucket {name}"):
            self.bucket = self.admin.client.call("POST", "/timeseries/buckets", request, Bucket).bucket
        self.chronicle.expect("BUCKET_CREATE", self.admin.client)

    def sign_up(self, name: str, role: Role) -> Person:
        """The admin signs somebody up, who then signs in."""
        email = _address(name.lower().replace(" ", "-"))
        request = RegisterRequest(email=email, password=self._password, role=role)
        with self._making(f"the user {email}"):
            made = self.admin.client.call("POST", "/auth/register", request, RegisterResponse)
        self.emails[made.user_id], self.names[str(made.user_id)] = email, name
        self.chronicle.expect("REGISTER", self.admin.client)
        token = _token(self.nobody, email, self._password)
        self.chronicle.expect("LOGIN", self.nobody)
        return _person(name, self.nobody.signed_in(token))

    @contextmanager
    def _making(self, thing: str) -> Iterator[None]:
        """Names the thing as perhaps left behind where no answer tells whether the request has made it."""
        try:
            yield
        except BaseException as problem:
            certain = isinstance(problem, Stopped) or (isinstance(problem, Refused) and 400 <= problem.status < 500)
            if not certain:
                self.leave(thing, BROKEN_OFF)
            raise

    def leave(self, thing: str, why: object) -> None:
        """Say what is not as it was before."""
        self.left.append(thing)
        self.console.print(f"Left behind: {thing}: {why}", style="red", markup=False, soft_wrap=True)

    def close(self) -> None:
        """Delete the people and their data, or say how to sign in as them; then the admin signs out.

        What cannot be deleted is named, and in ``left``.
        """
        with self.admin.client.stop.postponed():
            if self.keep:
                self._tell_what_stays()
            else:
                self._dissolve()
            self._end("POST", "/auth/logout", "the admin's session")

    def _tell_what_stays(self) -> None:
        self.console.print(f"Kept: the bucket {self.bucket}, and with the password {self._password}", soft_wrap=True)
        for email in self.emails.values():
            self.console.print(f"  {email}")

    def _dissolve(self) -> None:
        things = [(f"/users/{user_id}", f"the user {email}") for user_id, email in self.emails.items()]
        things += [(f"/timeseries/buckets/{self.bucket}", f"the bucket {self.bucket}")] if self.bucket else []
        while things:
            try:
                self._end("DELETE", *things[0])
            except SystemExit:
                for _, thing in things:
                    self.leave(thing, BROKEN_OFF)
                raise
            del things[0]
        if not self.left:
            self.console.print(
                f"Deleted the {len(self.emails)} people and their heart data (--keep keeps them);"
                " the audit trail stays."
            )

    def _end(self, method: str, path: str, thing: str) -> None:
        try:
            self.admin.client.send(method, path)
        except Refused as refused:
            self.leave(thing, refused)


def _token(nobody: GatewayClient, email: str, password: str) -> str:
    request = LoginRequest(email=email, password=password)
    return nobody.call("POST", "/auth/login", request, LoginResponse).access_token


def _person(name: str, client: GatewayClient) -> Person:
    profile = client.call("GET", "/auth/profile", None, Profile)
    assert not isinstance(profile.last_login_at, UnsetType)
    return Person(name, profile.email, profile.id, profile.org_id, profile.last_login_at, client)


def _address(name: str) -> str:
    return f"demo-{name}-{secrets.token_hex(6)}@heartguard.example"
