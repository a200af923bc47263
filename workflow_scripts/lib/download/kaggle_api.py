"""Kaggle downloads with the user's own credentials, which are never printed, logged or stored.

Addresses follow the public description of Kaggle's API: GET {api}/competitions/data/download/{competition}/{file}, with
basic authentication by user name and key, or a token. The response redirects to the file itself."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.stage import log

COMPETITIONS = {
    "kaggle2018": "human-protein-atlas-image-classification",
    "kaggle2021": "hpa-single-cell-image-classification",
}


def address(api: str, source: str, file: str) -> str:
    """Address of a file of a competition."""
    return f"{api.rstrip('/')}/competitions/data/download/{COMPETITIONS[source]}/{quote(file, safe='')}"


def authorization(source: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Authorization header."""
    if token := environment.get("KAGGLE_API_TOKEN"):
        return {"Authorization": f"Bearer {_one_line(token, 'KAGGLE_API_TOKEN')}"}
    name, key = environment.get("KAGGLE_USERNAME", ""), environment.get("KAGGLE_KEY", "")
    where = "KAGGLE_USERNAME and KAGGLE_KEY"
    if not (name and key):
        folder = environment.get("KAGGLE_CONFIG_DIR")
        path = (Path(folder) if folder else Path(environment.get("HOME", "~")).expanduser() / ".kaggle") / "kaggle.json"
        if not path.exists():
            raise UserError(
                "Kaggle needs to know who asks: set KAGGLE_USERNAME and KAGGLE_KEY, or put the kaggle.json of your "
                f"account (kaggle.com, Settings, API) into {path.parent}; and accept the rules of the competition "
                f"{COMPETITIONS[source]} there once"
            )
        name, key, where = *_read(path), str(path)
    pair = f"{_one_line(name, where)}:{_one_line(key, where)}".encode()
    return {"Authorization": "Basic " + base64.b64encode(pair).decode()}


def _read(path: Path) -> tuple[str, str]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        name, key = value["username"], value["key"]
    except (OSError, ValueError, KeyError, TypeError):
        # The detailed error could contain a part of the key.
        raise UserError(f"{path} is not a kaggle.json with username and key: get a new one from kaggle.com") from None
    if not (isinstance(name, str) and isinstance(key, str) and name and key):
        raise UserError(f"{path} is not a kaggle.json with username and key: get a new one from kaggle.com")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        log.warning("%s can be read by others on this machine: chmod 600 %s", path, path)
    return name, key


def _one_line(text: str, where: str) -> str:
    if not text.isprintable():
        raise UserError(f"the Kaggle credentials in {where} hold a line break or another invisible sign")
    return text


def explained(reason: str, source: str) -> str:
    """Reason why Kaggle refused, and what to do about it."""
    if reason.startswith("401"):
        return f"{reason}: Kaggle does not accept the credentials"
    if reason.startswith("403"):
        return (
            f"{reason}: accept the rules of the competition {COMPETITIONS[source]} on kaggle.com once, with the "
            "account that the credentials belong to"
        )
    return reason
