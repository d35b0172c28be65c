"""Types that every service answers with."""

from typing import Literal

from .base import UNSET, Answer, UnsetType


class Detail(Answer):
    """One violation: where (an RFC 6901 pointer into the body) and what."""

    path: str
    message: str


class Error(Answer):
    """Why a request failed. In JSON it stands under the key ``error``."""

    code: str
    message: str
    request_id: str
    details: list[Detail] | UnsetType = UNSET


class Health(Answer):
    """The process lives."""

    status: Literal["ok"]
    service: str
    version: str
    uptime_seconds: float


class Check(Answer):
    """Whether one dependency answers."""

    name: str
    status: Literal["ok", "failed"]
    latency_ms: float


class Ready(Answer):
    """Whether the service can do its work, asked of each dependency."""

    status: Literal["ready", "degraded", "unavailable"]
    checks: list[Check]
