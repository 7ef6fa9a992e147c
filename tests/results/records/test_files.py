"""Files that are written whole or not at all."""

from pathlib import Path

from segfaith.results.records.files import create_file


def test_a_file_is_created_once(tmp_path: Path) -> None:
    file = tmp_path / "new" / "run.json"
    assert create_file(file, "first")
    assert not create_file(file, "second")
    assert file.read_text() == "first"
    assert [path.name for path in file.parent.iterdir()] == ["run.json"]
