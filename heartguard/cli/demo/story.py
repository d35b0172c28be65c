"""What happens, in acts. Each says in a line what it shows, and ends the demo where that is not so."""

import time

from lxml import etree
from rich.markup import escape
from rich.syntax import Syntax

from ...codec import decode
from ...models.auth_token import Profile
from ...models.base import Request
from ...models.organization import Organization, OrganizationUpdate
from ...models.timeseries import QueryRequest, QueryResult, WriteRequest
from ...models.user import RoleChange, User, Users
from ...negotiation import Format
from ..client import Refused
from . import heart, trail
from .company import Company, Person
from .recording import Recording, load, slowed

SLOWER = 1.25
"""How many times slower than the recorded heart patient B's beats."""
POLICIES = "ISO27001 (heartguard demo)"


def play(company: Company) -> None:
    """All of it. Raises :class:`Refused` where the gateway does not do what the contract says."""
    company.make_bucket()
    manager = company.sign_up("manager", "manager")
    clinician = company.sign_up("clinician", "manager")
    one, other = company.sign_up("patient A", "user"), company.sign_up("patient B", "user")
    company.console.print(
        f"Organization {one.org_id}: the admin {escape(company.admin.email)} signed up a manager, a clinician"
        " (who sees the organization's data, and so has the role manager), patient A and patient B."
    )
    recording = load()
    start = int(time.time()) // 60 * 60 - recording.seconds
    _send(one, other, recording, start, company)
    means = heart.one_minute_means(company, start, recording.seconds)
    _read_in_both_formats(one, means, company)
    _see_both(clinician, {one.id, other.id}, means, company)
    _read_everything(clinician, {one: recording, other: slowed(recording, SLOWER)}, start, company)
    theirs = heart.one_minute_means(company, start, recording.seconds, of=other)
    forged = WriteRequest(bucket=company.bucket, points=list(heart.points(recording, start, other.id))[:1])
    _be_refused(one, theirs, forged, company)
    _manage(manager, company)
    _demote(manager, company)
    _look_back(company)


def _send(one: Person, other: Person, recording: Recording, start: int, company: Company) -> None:
    company.console.print("Patient A's heart is a real one: MIT-BIH record 208, five minutes, second by second:")
    company.console.print(heart.sparkline(recording.rates, width=75))
    heart.send(one, recording, start, company)
    slower = slowed(recording, SLOWER)
    company.console.print(f"Patient B's is no other: the same recording, made {SLOWER} times slower for the demo:")
    company.console.print(heart.sparkline(slower.rates, width=75))
    heart.send(other, slower, start, company)


def _read_in_both_formats(patient: Person, question: QueryRequest, company: Company) -> None:
    """A patient who names nobody is shown the own data."""
    in_json = patient.client.call("POST", "/timeseries/query", question, QueryResult)
    in_xml = patient.client.send("POST", "/timeseries/query", question, Format.XML).body
    _check(_whose(in_json) == {patient.id}, "the patient was shown other data than the own")
    company.console.print("\nPatient A asks for 1-minute means, and is shown the own:")
    heart.show(in_json.results, company.names, company.console)
    company.console.print("The same answer in XML begins:")
    company.console.print(Syntax(_beginning(in_xml), "xml", background_color="default", word_wrap=True))
    _check(decode(in_xml, Format.XML, QueryResult) == in_json, "the answers in JSON and XML differ")
    company.console.print("[green]JSON and XML say the same.[/green]")


def _see_both(clinician: Person, both: set[int], question: QueryRequest, company: Company) -> None:
    found = clinician.client.call("POST", "/timeseries/query", question, QueryResult)
    company.console.print("\nThe clinician asks the same, and sees both patients:")
    heart.show(found.results, company.names, company.console)
    _check(_whose(found) == both, "the clinician did not see both patients' data")


def _read_everything(clinician: Person, sent: dict[Person, Recording], start: int, company: Company) -> None:
    """An answer that is long takes other ways than one that is short; in each format it has to be what was sent."""
    values = 0
    for measurement in heart.MEASUREMENTS:
        question = heart.everything(company, measurement, start, max(one.seconds for one in sent.values()))
        wanted = set().union(*(heart.sent(one, start, whose.id, measurement) for whose, one in sent.items()))
        for fmt in Format:
            found = clinician.client.call("POST", "/timeseries/query", question, QueryResult, fmt)
            complete = heart.received(found.results) == wanted and found.count == len(wanted)
            _check(
                complete,
                f"{measurement} in {fmt.name} is not what the patients sent: {found.count} values came back,"
                f" {len(wanted)} were sent",
            )
        values += len(wanted)
    company.console.print(
        f"The clinician asks for every second and every beat: [green]all {values} values that the patients sent come"
        " back, in JSON and in XML.[/green]"
    )


def _be_refused(patient: Person, theirs: QueryRequest, forged: WriteRequest, company: Company) -> None:
    company.console.print("\nPatient A tries what a patient may not:")
    _refused(403, patient, "POST", "/timeseries/query", company, theirs, tried="to read patient B's data")
    company.chronicle.expect("ACCESS_DENIED", patient.client, "denied")
    _refused(403, patient, "POST", "/timeseries/write", company, forged, tried="to write as patient B")
    company.chronicle.expect("ACCESS_DENIED", patient.client, "denied")
    _refused(403, patient, "GET", "/users", company, tried="to list the organization's users")
    company.chronicle.expect("ACCESS_DENIED", patient.client, "denied")


def _manage(manager: Person, company: Company) -> None:
    """The manager lists the users, and changes the organization as it was read; then all is as it was before."""
    listed = manager.client.call("GET", "/users?limit=200", None, Users)
    _check(set(company.emails) <= {user.id for user in listed.items}, "the manager did not see the demo's people")
    company.console.print(f"\nThe manager lists the users, and finds all {len(company.emails)} of the demo.")
    before, etag = _organization(manager)
    with manager.client.stop.postponed():
        try:
            _change(manager, etag, company)
        finally:
            _put_back(manager, before.policies, company)


def _change(manager: Person, etag: str, company: Company) -> None:
    _update(manager, POLICIES, etag, company)
    company.console.print(
        f"The manager sets the organization's policies to {POLICIES!r}; with the ETag from before, again:"
    )
    _refused(412, manager, "PUT", "/organization", company, OrganizationUpdate(policies="stale"), if_match=etag)


def _put_back(manager: Person, policies: str, company: Company) -> None:
    """Also where nobody knows whether they were changed, because the answer did not arrive."""
    try:
        found, etag = _organization(manager)
        if found.policies == POLICIES:
            _update(manager, policies, etag, company)
            company.console.print("The policies are what they were before.")
    except BaseException as problem:
        company.leave(f"the policies of the organization, which were {policies!r}", problem)
        raise


def _organization(manager: Person) -> tuple[Organization, str]:
    """As it is now, with its ETag."""
    read = manager.client.send("GET", "/organization")
    return decode(read.body, Format.JSON, Organization), read.etag


def _update(manager: Person, policies: str, etag: str, company: Company) -> None:
    manager.client.send("PUT", "/organization", OrganizationUpdate(policies=policies), if_match=etag)
    company.chronicle.expect("ORGANIZATION_UPDATE", manager.client)


def _demote(manager: Person, company: Company) -> None:
    """The refused request is nobody's: the trail of the organization does not hold it."""
    manager.client.call("GET", "/auth/profile", None, Profile)
    company.admin.client.call("PUT", f"/users/{manager.id}/role", RoleChange(role="user"), User)
    company.chronicle.expect("ROLE_CHANGE", company.admin.client)
    company.console.print("\nThe admin makes the manager a user. The manager's token, good until now, is dead at once:")
    _refused(401, manager, "GET", "/auth/profile", company)


def _look_back(company: Company) -> None:
    company.console.print("\nThe admin reads what the audit trail has of these minutes:")
    admin = company.admin
    trail.show(trail.arrived(admin.client, admin.signed_in_at, company.chronicle), company.names, company.console)
    trail.verify(admin.client, company.console)


def _refused(
    status: int,
    person: Person,
    method: str,
    path: str,
    company: Company,
    body: Request | None = None,
    *,
    tried: str = "",
    if_match: str = "",
) -> None:
    """The request has to be answered with that status."""
    try:
        person.client.send(method, path, body, if_match=if_match)
    except Refused as refused:
        if refused.status != status:
            raise
        company.console.print(
            f"  {tried + ': ' if tried else ''}[yellow]{escape(str(refused))}[/yellow]", soft_wrap=True
        )
    else:
        raise Refused(f"{method} {path} by the {person.name} should have been refused ({status})")


def _check(holds: bool, problem: str) -> None:
    if not holds:
        raise Refused(problem)


def _whose(result: QueryResult) -> set[int]:
    return {int(row.tags["user_id"]) for row in result.results}


def _beginning(document: bytes) -> str:
    root = etree.fromstring(document, etree.XMLParser(resolve_entities=False, no_network=True))
    return "\n".join(etree.tostring(root, pretty_print=True, encoding="unicode").splitlines()[:14])
