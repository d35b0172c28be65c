"""The influxd of this machine, if there is one, for the tests of what the local stack does with it."""

import os

import pytest

from heartguard.local.errors import SetupError
from heartguard.local.influx_program import find, refuse_other_versions


def _why_not() -> str:
    try:
        refuse_other_versions(find(os.environ.get("INFLUXD")))
    except SetupError as why:
        return str(why)
    return ""


_REASON = _why_not()
needs_influxd = pytest.mark.skipif(bool(_REASON), reason=f"no influxd of version 2 was found: {_REASON}"[:200])
