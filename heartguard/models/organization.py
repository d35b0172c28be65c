"""Types of the organization service."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from .base import UNSET, Answer, Email, ShownName, Text, UnsetType, Update, full

Policies = Annotated[Text, Meta(max_length=1000)]
"""What the organization keeps to, such as ISO27001; empty for nothing."""

Timezone = Annotated[
    str, full("[A-Za-z0-9_+/\\-]{1,64}", description="The name of a time zone of the IANA's, such as Europe/Madrid")
]
"""Which names there are changes with the world: the service knows."""


class OrganizationUpdate(Update):
    """Change what is given."""

    name: ShownName | UnsetType = UNSET
    policies: Policies | UnsetType = UNSET
    contact_email: Email | UnsetType = UNSET
    timezone: Timezone | UnsetType = UNSET


class Organization(Answer):
    id: int
    name: str
    policies: str
    created_at: datetime
    updated_at: datetime
    contact_email: str | UnsetType = UNSET
    timezone: str | UnsetType = UNSET


class OrganizationPolicies(Answer):
    policies: str
    updated_at: datetime
    """When anything of the organization was last changed."""
