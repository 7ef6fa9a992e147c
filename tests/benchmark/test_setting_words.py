"""The list of settings has every key, and no other."""

from segfaith.benchmark.setting_tables import Settings
from segfaith.benchmark.setting_words import SETTINGS, WORDS, keys_of


def test_every_key_has_its_words_and_its_default() -> None:
    assert set(WORDS) == {key for key, _ in keys_of(Settings)}
    assert SETTINGS["data.size"].meaning.startswith("224: ")
    assert SETTINGS["model.name"].meaning.startswith("(must be given): ")
    assert SETTINGS["data.root"].meaning.startswith("-: ")
    assert SETTINGS["evaluation.occlusion"].meaning.startswith("[mean]: ")
    assert SETTINGS["execution.incremental"].meaning.startswith("true: ")
    assert SETTINGS["target.class"].meaning.startswith("-: ")
