"""What an organization says of itself, and who changes it."""

from functools import cache
from zoneinfo import available_timezones

from heartguard import audit
from heartguard.database import Database
from heartguard.errors import Invalid, NotFound
from heartguard.models.base import UNSET, given
from heartguard.models.common import Detail
from heartguard.models.organization import Organization, OrganizationPolicies, OrganizationUpdate
from heartguard.preconditions import IfMatch
from heartguard.tokens import Claims

from . import db


class Organizations:
    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, caller: Claims) -> Organization:
        with self._database.transaction(caller.org_id) as tx:
            found = db.find(tx, caller.org_id)
        if found is None:
            raise NotFound
        return _answer(found)

    def policies_of(self, caller: Claims) -> OrganizationPolicies:
        organization = self.of(caller)
        return OrganizationPolicies(policies=organization.policies, updated_at=organization.updated_at)

    def update(self, changes: OrganizationUpdate, read_as: IfMatch, caller: Claims) -> Organization:
        """Raises :class:`Invalid` for a time zone that there is not, and what :meth:`IfMatch.check` does."""
        if changes.timezone is not UNSET and changes.timezone not in _timezones():
            raise Invalid([Detail(path="/timezone", message="must be the name of a time zone of the IANA's")])
        with self._database.transaction(caller.org_id) as tx:
            current = db.lock(tx, caller.org_id)
            if current is None:
                raise NotFound
            read_as.check(_answer(current))
            audit.record(tx, changed=given(changes))
            return _answer(db.update(tx, caller.org_id, changes))


@cache
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones())


def _answer(stored: db.Stored) -> Organization:
    return Organization(
        id=stored.id,
        name=stored.name,
        policies=stored.policies,
        created_at=stored.created_at,
        updated_at=stored.updated_at,
        contact_email=UNSET if stored.contact_email is None else stored.contact_email,
        timezone=UNSET if stored.timezone is None else stored.timezone,
    )
