"""What all gateways of a comparison are given."""

from dataclasses import dataclass

import redis


@dataclass(frozen=True)
class Scene:
    """The port of the service behind them, and the Valkey that the limits are kept in."""

    upstream: int
    valkey_url: str

    @property
    def valkey_socket(self) -> str:
        return str(self._valkey()["path"])

    @property
    def valkey_password(self) -> str:
        return str(self._valkey()["password"])

    def _valkey(self) -> dict[str, object]:
        return dict(redis.connection.parse_url(self.valkey_url))  # type: ignore[no-untyped-call]
