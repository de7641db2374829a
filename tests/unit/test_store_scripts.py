"""The scripts as files: headers that say what they take and give, names of ids, and tokens as text."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from support.stores import SWEEP, documented_keys, fake_store, make_sweep

from resweep_scheduler.store import (
    ClaimToken,
    InvalidNameError,
    Scope,
    new_id,
    validate_project,
    validate_run_id,
    validate_sweep_id,
)

LUA = files("resweep_scheduler.store") / "lua"
SCRIPTS = sorted(entry.name.removesuffix(".lua") for entry in LUA.iterdir() if entry.name.endswith(".lua"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_header_says_what_the_script_takes_and_gives(name: str) -> None:
    """Guarantee, KEYS, args, returns, transitions, includes; and every argument that the script reads is in it."""
    text = (LUA / f"{name}.lua").read_text()
    header = "\n".join(line for line in text.split("\n\n")[0].splitlines() if line.startswith("--"))
    for part in ("-- KEYS[1] ", " args: ", "-- returns {", "-- from → to: ", "-- include: base"):
        assert part in header
    first = header.splitlines()[0]
    assert first.startswith("-- ")
    assert first[3].isupper()
    read = set(re.findall(r"\bargs\.(\w+)", text)) - {"prefix"}
    assert {argument for argument in read if not re.search(rf"\b{argument}\b", header)} == set()


def test_list_of_keys_is_read() -> None:
    """The leak check has something to compare with."""
    assert len(documented_keys()) == 29


def test_prefix_of_a_project_is_one_hash_tag() -> None:
    """All keys of a project live on one node of a cluster."""
    store = fake_store()
    make_sweep(store)
    keys = [str(key) for key in store.client.scan_iter() if key != "resweep:sweeps"]
    assert keys
    assert {re.match(r"resweep:(\{[^}]*\}):", key).group(1) for key in keys} == {"{local/uncategorized}"}  # type: ignore[union-attr]
    assert store.keys.sweep(SWEEP, "queue") == "resweep:{local/uncategorized}:sweep:sweep1:queue"


# Names.


@pytest.mark.parametrize("text", ["a", "run-1", "Übung 7", "x" * 128, pytest.param(new_id(), id="new"), "a.b", "..."])
def test_run_ids_as_in_wandb(text: str) -> None:
    """What W&B takes is taken."""
    assert validate_run_id(text) == text


@pytest.mark.parametrize(
    "text", ["", " ", "\t", " a", "a ", "a\nb", ".", "..", "x" * 129, *(f"a{c}b" for c in ":;,#?/'{}\\")]
)
def test_bad_run_ids(text: str) -> None:
    """What would leave a key, a folder or W&B's rules is refused in one line."""
    with pytest.raises(InvalidNameError) as raised:
        validate_run_id(text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "a b", "a/b", "a:b", "x" * 65, "ü", "a\n"])
def test_bad_sweep_ids(text: str) -> None:
    """Sweep ids are part of keys and of command lines."""
    with pytest.raises(InvalidNameError):
        validate_sweep_id(text)


@pytest.mark.parametrize("text", ["", "a b", "a/b", "a{b}", ".", "..", "x" * 129, "a\n"])
def test_bad_projects(text: str) -> None:
    """Entities and projects are part of keys and of folders."""
    with pytest.raises(InvalidNameError):
        validate_project(text)


@pytest.mark.parametrize(
    ("text", "scope"),
    [("p", Scope("local", "p")), ("e/p", Scope("e", "p")), ("local/uncategorized", Scope())],
)
def test_scope_as_text(text: str, scope: Scope) -> None:
    """`project` alone is in the entity "local"."""
    assert Scope.parse(text) == scope
    assert Scope.parse(str(scope)) == scope


@pytest.mark.parametrize("nonce", ["s.1", "a:b.7", "0123456789abcdef.12"])
def test_claim_as_text(nonce: str) -> None:
    """RESWEEP_CLAIM is read as it was written."""
    token = ClaimToken("run0", 3, nonce)
    assert ClaimToken.decode("run0", token.encode()) == token


@pytest.mark.parametrize("text", ["", "3", "3:", ":s.1", "x:s.1", "-1:s.1"])
def test_bad_claims(text: str) -> None:
    """What nobody wrote is refused with the rule."""
    with pytest.raises(ValueError, match="ATTEMPT:NONCE"):
        ClaimToken.decode("run0", text)
