"""Files are stored, listed, linked to and removed; nobody sees another's."""

import hashlib

from .conftest import PNG, Caller


def test_the_life_of_a_file(admin: Caller) -> None:
    made = admin.upload(PNG, file_name="corazón ❤.png")
    assert made.status_code == 201, made.text
    assert made.json is not None
    id_ = made.json["id"]
    assert made.json | {"created_at": ""} == {
        "id": id_,
        "file_name": "corazón ❤.png",
        "content_type": "image/png",
        "size": len(PNG),
        "sha256": hashlib.sha256(PNG).hexdigest(),
        "owner_id": 1,
        "created_at": "",
    }
    assert admin.items() == [id_]
    assert admin.send("GET", f"/media/items/{id_}").json == made.json
    link = admin.link(id_)
    answer = admin.fetch(link["url"])
    assert (answer.status, answer.data) == (200, PNG)
    assert admin.send("DELETE", f"/media/items/{id_}").status_code == 204
    assert admin.send("DELETE", f"/media/items/{id_}").status_code == 404
    assert admin.send("GET", f"/media/items/{id_}").status_code == 404
    assert admin.fetch(link["url"]).status == 404
    assert admin.items() == []
