"""The endpoints of the organization service (section 5 of the contract)."""

from heartguard.endpoints import Endpoints
from heartguard.models.organization import Organization, OrganizationPolicies, OrganizationUpdate
from heartguard.policy import Audience
from heartguard.preconditions import IfMatch
from heartguard.tokens import Claims

from .organizations import Organizations

endpoints = Endpoints("organization")

GONE = {404: "The organization is gone"}


@endpoints.get("/organization", audience=Audience.SIGNED_IN, etag=True, errors=GONE)
def read(caller: Claims, organizations: Organizations) -> Organization:
    """The caller's organization."""
    return organizations.of(caller)


@endpoints.put("/organization", audience=Audience.MANAGER, audit="ORGANIZATION_UPDATE", etag=True, errors=GONE)
def update(changes: OrganizationUpdate, read_as: IfMatch, caller: Claims, organizations: Organizations) -> Organization:
    """Change the caller's organization."""
    return organizations.update(changes, read_as, caller)


@endpoints.get("/organization/policies", audience=Audience.SIGNED_IN, etag=True, errors=GONE)
def read_policies(caller: Claims, organizations: Organizations) -> OrganizationPolicies:
    """What the caller's organization keeps to."""
    return organizations.policies_of(caller)
