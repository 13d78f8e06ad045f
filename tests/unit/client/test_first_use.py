"""Trust on first use: what is asked on a terminal, which answers trust, what a mirror gets."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from support.goldens import assert_golden
from support.signed_repository import Signed

from zoo.client.first_use import Ask, asker
from zoo.client.roots import TrustHome, trusted_root
from zoo.schema.layout import FIRST_ROOT
from zoo.stores import LocalStore
from zoo.util.digest import sha256_file
from zoo.util.errors import TrustError


class Terminal(io.StringIO):
    """Text that is typed, or a screen."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    made = Signed(tmp_path)
    made.release()
    return made


@pytest.fixture
def home(tmp_path: Path) -> TrustHome:
    return TrustHome(roots=tmp_path / "roots", verified=tmp_path / "verified")


def on_terminal(typed: str) -> tuple[Ask, Terminal]:
    screen = Terminal()
    ask = asker(Terminal(typed), screen)
    assert ask is not None
    return ask, screen


@pytest.mark.parametrize("typed", ["yes\n", "YES\n", "what\ny\nyes\n", "{sha}\n", "sha256:{sha}\n"])
def test_an_answer_that_says_so_trusts_for_good(
    typed: str, signed: Signed, home: TrustHome
) -> None:
    digest = sha256_file(signed.path(FIRST_ROOT))
    ask, screen = on_terminal(typed.format(sha=digest))
    root = trusted_root(signed.store, home, None, ask)
    assert root == signed.path(FIRST_ROOT).read_bytes()
    assert digest in screen.getvalue()
    assert trusted_root(signed.store, home, None) == root  # nobody is asked again
    if typed == "yes\n":
        assert_golden(
            "client/first-use", screen.getvalue(), {digest: "SHA", home.roots.parent: "TMP"}
        )


@pytest.mark.parametrize("typed", ["no\n", "n\n", "", "\n", "what\n", "0" * 64 + "\n"])
def test_any_other_answer_trusts_nothing(typed: str, signed: Signed, home: TrustHome) -> None:
    ask, _ = on_terminal(typed)
    with pytest.raises(TrustError) as refused:
        trusted_root(signed.store, home, None, ask)
    assert refused.value.exit_code == TrustError("").exit_code
    assert home.root(signed.store.url) is None


def test_an_interrupt_trusts_nothing(signed: Signed, home: TrustHome) -> None:
    def interrupted(url: str, fingerprint: str) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trusted_root(signed.store, home, None, interrupted)
    assert home.root(signed.store.url) is None


def test_nobody_is_asked_where_nobody_can_answer() -> None:
    assert asker(io.StringIO("yes\n"), Terminal()) is None
    assert asker(Terminal("yes\n"), io.StringIO()) is None


def test_a_repository_without_a_root_is_not_offered(home: TrustHome, tmp_path: Path) -> None:
    ask, screen = on_terminal("yes\n")
    with pytest.raises(TrustError) as refused:
        trusted_root(LocalStore(tmp_path / "empty"), home, None, ask)
    assert not screen.getvalue()
    assert "--trust ROOT" in str(refused.value.hint)


def test_a_mirror_is_trusted_like_its_origin(signed: Signed, home: TrustHome) -> None:
    digest = sha256_file(signed.path(FIRST_ROOT))
    with pytest.raises(TrustError):
        home.hand_on(signed.store.url, "s3://mirror/zoo")
    root = trusted_root(signed.store, home, digest)
    assert home.hand_on(signed.store.url, "s3://mirror/zoo") == digest
    assert home.root("s3://mirror/zoo") == root
