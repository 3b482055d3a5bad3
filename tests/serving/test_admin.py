"""Administration: models come, change and go, for whoever has a key of its own."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from distilora.serving.keys import Keys
from distilora.serving.pool import Pool

ADMIN = {"authorization": "Bearer key-of-the-administrator"}
USER = {"authorization": "Bearer key-of-one-of-the-users"}


@pytest.fixture
def admin(serve: Any, finished: Path) -> TestClient:
    pool = Pool("fp32")
    pool.add("reviews", str(finished))
    return serve(pool=pool, keys=Keys(["key-of-one-of-the-users"]), admin_keys=Keys(["key-of-the-administrator"]))


def test_add_replace_and_remove(admin: TestClient, folders: dict[str, Path]) -> None:
    added = admin.put("/admin/models/stars", json={"folder": str(folders["regression"])}, headers=ADMIN)
    assert (added.status_code, added.json()["task"], added.json()["first"]) == (200, "regression", False)
    body = {"model": "stars", "input": "superb"}
    assert "value" in admin.post("/v1/classify", json=body, headers=USER).json()["answers"][0]
    admin.put("/admin/models/stars", json={"folder": str(folders["multilabel"])}, headers=ADMIN)
    assert admin.post("/v1/classify", json=body, headers=USER).json()["task"] == "multilabel"
    assert admin.delete("/admin/models/stars", headers=ADMIN).json() == {"removed": "stars"}
    assert admin.post("/v1/classify", json=body, headers=USER).status_code == 404
    assert admin.delete("/admin/models/stars", headers=ADMIN).status_code == 404
    last = admin.delete("/admin/models/reviews", headers=ADMIN)
    assert (last.status_code, last.json()["error"]["kind"]) == (422, "invalid")


def test_an_unfinished_run_and_names_on_the_hub(
    admin: TestClient, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("the Hub was asked"))
    shutil.copytree(finished / "model", tmp_path / "run" / "model")
    for folder, told in ((str(tmp_path / "run"), "not finished"), ("somebody/some-model", "no such folder")):
        refused = admin.put("/admin/models/reviews", json={"folder": folder}, headers=ADMIN)
        assert (refused.status_code, refused.json()["error"]["kind"]) == (422, "not_loaded")
        assert told in refused.json()["error"]["message"]
    assert (
        admin.put("/admin/models/more", json={"folder": str(tmp_path / "run" / "model")}, headers=ADMIN).status_code
        == 200
    )


def test_a_damaged_model_is_named_by_its_place_in_the_folder(admin: TestClient, finished: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(finished, tmp_path / "a")
    weights = next((broken / "model").rglob("adapter_model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    refused = admin.put("/admin/models/reviews", json={"folder": str(broken)}, headers=ADMIN)
    message = refused.json()["error"]["message"]
    assert message.startswith("folder: model/adapter/adapter_model.safetensors: "), message


def test_keys_of_one_kind_do_not_open_the_other(admin: TestClient, finished: Path) -> None:
    body = {"folder": str(finished)}
    for headers in ({}, USER):
        assert admin.put("/admin/models/x", json=body, headers=headers).status_code == 401
        assert admin.delete("/admin/models/reviews", headers=headers).status_code == 401
        assert admin.get("/admin", headers=headers).status_code == 401
    assert admin.post("/v1/classify", json={"input": "x"}, headers=ADMIN).status_code == 401


def test_what_cannot_be_loaded_leaves_everything_as_it_was(admin: TestClient, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    unloadable = [(str(tmp_path / name), "not_loaded") for name in ("none", "empty")]
    for folder, kind in (*unloadable, ("", "invalid"), (3, "invalid"), ("a\0b", "invalid")):
        refused = admin.put("/admin/models/reviews", json={"folder": folder}, headers=ADMIN)
        assert (refused.status_code, refused.json()["error"]["kind"]) == (422, kind)
        assert str(tmp_path) not in refused.text
    for name in ("-x", "a%20b", "x" * 65):
        refused = admin.put(f"/admin/models/{name}", json={"folder": "x"}, headers=ADMIN)
        assert (refused.status_code, refused.json()["error"]["field"]) == (422, "name")
    assert admin.post("/v1/classify", json={"input": "x"}, headers=USER).json()["model"] == "reviews"
