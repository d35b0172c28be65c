"""What logs and the audit trail show of a path."""

import pytest

from heartguard.paths import LONGEST, shown

ID = "0197c3a2-5b1e-7c44-9d1a-3f0e8a6b2c11"


@pytest.mark.parametrize(
    ("path", "template", "expected"),
    [
        ("/users/me", "/users/me", "/users/me"),
        ("/users/7/role", "/users/{id}/role", "/users/7/role"),
        ("/users/ana/role", "/users/{id}/role", "/users/*/role"),
        ("/users/ana@hg.io", "/users/<int:id>", "/users/*"),
        (f"/media/items/{ID}/download", "/media/items/{id}/download", f"/media/items/{ID}/download"),
        (
            f"/media/objects/org_1/user_2/{ID}/ana-garcia.pdf",
            "/media/objects/{organization}/{owner}/{id}/{name}",
            f"/media/objects/org_1/user_2/{ID}/*",
        ),
        ("/timeseries/buckets/org_7_icu", "/timeseries/buckets/{bucket}", "/timeseries/buckets/org_7_icu"),
        ("/timeseries/buckets/Secret123!x", "/timeseries/buckets/{bucket}", "/timeseries/buckets/*"),
        ("/auth/nowhere/at-all/openapi.json", None, "/auth/nowhere/at-all/openapi.json"),
        ("/auth/nowhere/ana@hg.io/Ana/10.0.0.1/", None, "/auth/nowhere/*/*/*/"),
    ],
)
def test_what_people_put_into_a_path_is_not_shown(path: str, template: str | None, expected: str) -> None:
    assert shown(path, template) == expected


def test_a_long_path_is_cut() -> None:
    assert len(shown("/a" * LONGEST, None)) == LONGEST
