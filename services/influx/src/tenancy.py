"""Whose bucket, and whose points.

The buckets of organization 7 are ``org_7``, its default, and ``org_7_<name>``.
"""

import re

from heartguard.errors import Forbidden, NotFound
from heartguard.models.base import UnsetType
from heartguard.tokens import Claims

USER_TAG = "user_id"
_OWNED = re.compile(r"org_([1-9][0-9]{0,18})(?:_[a-z0-9_]+)?")
_NAME = re.compile(r"[a-z0-9_]{1,64}")


def default_bucket(org_id: int) -> str:
    return f"org_{org_id}"


def owns(org_id: int, bucket: str) -> bool:
    """Whether a bucket of that name is, or would be, the organization's."""
    default = default_bucket(org_id)
    named = bucket.startswith(f"{default}_") and len(bucket) > len(default) + 1
    return (bucket == default or named) and _NAME.fullmatch(bucket) is not None


def owner(bucket: str) -> str | None:
    """The number of the organization that owns a bucket of that name; None where it is none of ours."""
    found = _OWNED.fullmatch(bucket)
    return found[1] if found else None


def writable(bucket: str | UnsetType, caller: Claims) -> str:
    """The name of the bucket to write to or to make; another organization's is refused."""
    if isinstance(bucket, UnsetType):
        return default_bucket(caller.org_id)
    if not owns(caller.org_id, bucket):
        default = default_bucket(caller.org_id)
        raise Forbidden(f"Your organization's buckets are {default} and {default}_<name>")
    return bucket


def readable(bucket: str | UnsetType, caller: Claims) -> str:
    """The name of the bucket to read or to drop; for the caller there are no others."""
    if isinstance(bucket, UnsetType):
        return default_bucket(caller.org_id)
    if not owns(caller.org_id, bucket):
        raise NotFound("There is no such bucket")
    return bucket


def check_organization(org: str | UnsetType, caller: Claims) -> None:
    """``org``, where a client sends it, has to be its own: by number or as ``org_<number>``."""
    if not isinstance(org, UnsetType) and org not in {str(caller.org_id), default_bucket(caller.org_id)}:
        raise Forbidden("org is not your organization")


def own_points_only(caller: Claims) -> str | None:
    """The ``user_id`` tag that all points have which the caller may write or read; None if any will do."""
    return str(caller.user_id) if caller.role == "user" else None
