"""Files are written whole or not at all."""

from pathlib import Path

import pytest

from segfaith.results.records.files import create_file, replace_file


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.txt"

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        assert not path.exists(), "nothing is written under the final name"
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_file(path, fail)
    assert list(path.parent.iterdir()) == []
    replace_file(path, lambda temporary: temporary.write_text("whole"))
    with pytest.raises(OSError, match="disk full"):
        replace_file(path, lambda temporary: fail_over(temporary))
    assert path.read_text() == "whole", "a failing rewrite leaves the old file"
    assert list(path.parent.iterdir()) == [path]


def fail_over(temporary: Path) -> None:
    temporary.write_text("ha")
    raise OSError("disk full")


def test_a_file_is_created_once(tmp_path: Path) -> None:
    file = tmp_path / "new" / "run.json"
    assert create_file(file, "first")
    assert not create_file(file, "second")
    assert file.read_text() == "first"
    assert [path.name for path in file.parent.iterdir()] == ["run.json"]
