from pathlib import Path

import pytest

from domain.errors import BadInput
from ledger.location import parse_location


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("ledger.sqlite", "ledger.sqlite"),
        ("/var/lib/live/ledger.sqlite", "/var/lib/live/ledger.sqlite"),
        ("./a/../b.db", "a/../b.db"),
        ("sqlite:///relative/ledger.db", "relative/ledger.db"),
        ("sqlite:////var/ledger.db", "/var/ledger.db"),
        ("odd:name.db", "odd:name.db"),
        (" spaces .db", " spaces .db"),
    ],
)
def test_a_path_or_a_url_names_a_file(text: str, path: str) -> None:
    location = parse_location(text)
    assert location.path == Path(path)
    assert str(location) == path


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "was no path"),
        ("sqlite://", "was no path"),
        ("sqlite:///", "was no path"),
        ("sqlite://host/ledger.db", "was no path"),
        ("postgresql://user:secret@host/db", "was a postgresql:// URL"),
        ("http://example.org/x", "was a http:// URL"),
        ("SQLITE:///x", "was a SQLITE:// URL"),
    ],
)
def test_anything_else_is_refused_without_telling_secrets(text: str, problem: str) -> None:
    with pytest.raises(BadInput, match=problem) as refused:
        parse_location(text)
    assert "--ledger: expected a path or sqlite:///PATH" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"expected a file, was the folder {tmp_path}"):
        parse_location(str(tmp_path))
