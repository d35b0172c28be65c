"""The endpoints of section 6 of the contract, and the one that the links of the local store lead to."""

import uuid

from flask import Response

from heartguard.context import Client
from heartguard.endpoints import Endpoints
from heartguard.incoming import Incoming
from heartguard.models.media_item import MediaItem, MediaItems, MediaUpload, SignedUrl
from heartguard.policy import Audience
from heartguard.tokens import Claims

from .listing import ItemsPage, Listing
from .media import Media
from .names import ObjectName
from .objects import LinkQuery, Objects
from .signing import PATH
from .uploads import FORM, FORM_SCHEMA

endpoints = Endpoints("media")


@endpoints.post(
    "/media/upload",
    audience=Audience.SIGNED_IN,
    status=201,
    audit="MEDIA_UPLOAD",
    upload=MediaUpload,
    accepts={FORM: FORM_SCHEMA},
    errors={
        413: "The file is larger than `MAX_UPLOAD_MB`",
        415: "The content is not of the declared or an allowed type (`MEDIA_001`), or the body of none that is read",
        422: "The body breaks the schema, the file is empty or its name is not to be had",
    },
)
def upload(incoming: Incoming, caller: Claims, media: Media) -> MediaItem:
    """Store a file."""
    return media.upload(incoming, caller)


@endpoints.get(
    "/media/items",
    audience=Audience.SIGNED_IN,
    errors={403: "A user asked for somebody else's files, or the caller's role may not do this"},
)
def list_items(page: ItemsPage, caller: Claims, listing: Listing) -> MediaItems:
    """The caller's files; a manager or admin sees the organization's."""
    return listing.page(page, caller)


@endpoints.get("/media/items/{id}", audience=Audience.SIGNED_IN, etag=True)
def show_item(id: uuid.UUID, caller: Claims, media: Media) -> MediaItem:  # noqa: A002 - its name in the path
    """What is known of a file."""
    return media.item(id, caller)


@endpoints.get("/media/items/{id}/download", audience=Audience.SIGNED_IN, audit="MEDIA_DOWNLOAD")
def sign_download(id: uuid.UUID, caller: Claims, client: Client, media: Media) -> SignedUrl:  # noqa: A002
    """A link to the file itself."""
    return media.link(id, caller, client.origin)


@endpoints.delete("/media/items/{id}", audience=Audience.ADMIN, audit="MEDIA_DELETE")
def delete_item(id: uuid.UUID, caller: Claims, media: Media) -> None:  # noqa: A002
    """Remove a file and all that is known of it."""
    media.delete(id, caller)


@endpoints.get(
    f"{PATH}/{{organization}}/{{owner}}/{{id}}/{{name}}",
    audience=Audience.PUBLIC,
    produces="*/*",
    statuses=[206, 304],
    errors={
        403: "The link is not one that was given out, or it has expired",
        412: "The file is none of those in `If-Match`",
        416: "The range lies behind the end",
    },
)
def download(organization: str, owner: str, id: str, name: str, query: LinkQuery, objects: Objects) -> Response:  # noqa: A002
    """The file that a link leads to."""
    return objects.serve(ObjectName(organization, owner, id, name), query)
