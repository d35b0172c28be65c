"""What an endpoint's statement becomes in the OpenAPI document, by endpoints made for the purpose."""

import uuid
from typing import Annotated, Any, Literal

from flask import Response
from msgspec import Meta

from heartguard import openapi
from heartguard.endpoint import Reply
from heartguard.endpoints import Endpoints
from heartguard.models.auth_token import IntrospectRequest, Roles
from heartguard.models.base import Query
from heartguard.policy import Audience


class Page(Query):
    sort: Literal["up", "down"]
    limit: Annotated[int, Meta(ge=1, le=200, description="How many")] = 50
    cursor: str = ""


def sample() -> dict[str, Any]:
    endpoints = Endpoints("timeseries")

    @endpoints.get("/timeseries/things", audience=Audience.MANAGER)
    def things(page: Page) -> Roles:
        """The things there are.

        Newest first, with ``limit`` to a page.
        """
        return Roles(roles=[])

    @endpoints.put("/timeseries/things/{id}/{number}/{name}", audience=Audience.ADMIN, etag=True, statuses=[201])
    def change(id: uuid.UUID, number: int, name: str, wanted: IntrospectRequest) -> Reply[Roles]:  # noqa: A002
        return Reply(Roles(roles=[]))

    @endpoints.get("/timeseries/raw", audience=Audience.SERVICE, errors={418: "It is a teapot"})
    def raw() -> Response:
        return Response()

    paths: dict[str, Any] = openapi.document(endpoints)["paths"]
    return paths


def test_the_docstring_is_summary_and_description() -> None:
    things = sample()["/timeseries/things"]["get"]
    assert things["summary"] == "The things there are"
    assert things["description"] == "Newest first, with `limit` to a page."
    assert things["operationId"] == "timeseries_things"
    assert sample()["/timeseries/raw"]["get"]["summary"] == "raw"


def test_the_query_is_told_with_its_constraints() -> None:
    sort, limit, _cursor = sample()["/timeseries/things"]["get"]["parameters"]
    assert limit == {
        "name": "limit",
        "in": "query",
        "required": False,
        "description": "How many",
        "schema": {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
    }
    assert (sort["required"], set(sort["schema"]["enum"])) == (True, {"up", "down"})
    answers = sample()["/timeseries/things"]["get"]["responses"]
    assert "422" in answers
    assert set(answers["200"]["headers"]) == {"Link"}, "a page has a next one"


def test_parts_of_the_path_have_types_and_changes_have_conditions() -> None:
    change = sample()["/timeseries/things/{id}/{number}/{name}"]["put"]
    kinds = {parameter["name"]: parameter["schema"] for parameter in change["parameters"]}
    assert kinds == {
        "id": {"type": "string", "format": "uuid"},
        "number": {"type": "integer"},
        "name": {"type": "string"},
        "If-Match": {"type": "string"},
    }
    assert change["responses"].keys() >= {"200", "201", "404", "412"}
    assert "304" not in change["responses"]


def test_an_answer_of_no_stated_type_can_be_anything() -> None:
    raw = sample()["/timeseries/raw"]["get"]
    assert raw["responses"]["200"]["content"] == {"*/*": {}}
    assert raw["responses"]["418"]["description"] == "It is a teapot"
    assert raw["x-audience"] == "S"
