"""What admins do to the users of their organization: other roles, and the end.

Whoever is given another role or removed is signed out everywhere, in the same transaction; the gateways are told
before the answer goes out.
"""

from sqlalchemy import Connection

from heartguard import audit
from heartguard.database import Database
from heartguard.errors import NotFound, ServiceError, Unauthorized
from heartguard.models.base import Role
from heartguard.models.user import User
from heartguard.preconditions import IfMatch
from heartguard.revocations import RevocationList, end_sessions, ended_sessions
from heartguard.tokens import Claims

from . import db
from .users import answer


class LastAdmin(ServiceError):
    def __init__(self) -> None:
        super().__init__(409, "The last admin must stay", code="USER_001")


class Members:
    def __init__(self, database: Database, revocations: RevocationList) -> None:
        self._database = database
        self._revocations = revocations

    def change_role(self, user_id: int, role: Role, read_as: IfMatch, caller: Claims) -> User:
        """Raises :class:`NotFound`, :class:`LastAdmin`, what :meth:`IfMatch.check` does, and
        :class:`heartguard.revocations.NotDeadEverywhere`, after which asking again is of use.
        """
        with self._database.transaction(caller.org_id) as tx:
            stored = self._lock(tx, user_id, caller, stays_admin=role == "admin")
            read_as.check(answer(stored))
            if stored.role != role:
                db.change_role(tx, caller.org_id, user_id, role)
                end_sessions(tx, user_id)
            audit.record(tx, user_id=user_id, role=role, before=stored.role)
            changed = db.found(tx, caller.org_id, user_id)
            ended = ended_sessions(tx, user_id)
        self._revocations.announce(ended)
        return answer(changed)

    def delete(self, user_id: int, caller: Claims) -> None:
        """Raises :class:`NotFound`, :class:`LastAdmin`, and :class:`heartguard.revocations.NotDeadEverywhere`."""
        with self._database.transaction(caller.org_id) as tx:
            self._lock(tx, user_id, caller, stays_admin=False)
            db.delete(tx, caller.org_id, user_id)
            end_sessions(tx, user_id)
            audit.record(tx, user_id=user_id)
            ended = ended_sessions(tx, user_id)
        self._revocations.announce(ended)

    @staticmethod
    def _lock(tx: Connection, user_id: int, caller: Claims, *, stays_admin: bool) -> db.Stored:
        """The user, who with all admins is locked: of two admins who turn on each other the second finds himself last.

        The caller's token may say more than is true by now.
        """
        admins = db.lock_admins(tx, caller.org_id, user_id)
        stored = db.find(tx, caller.org_id, user_id)
        if stored is None:
            raise NotFound
        if admins == [user_id] and not stays_admin:
            raise LastAdmin
        if caller.user_id not in admins or not db.is_signed_in(tx, caller.user_id, caller.sid):
            raise Unauthorized
        return stored
