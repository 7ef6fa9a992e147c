"""Files of figures: valid, with their words, the same bytes for the same data, and none of what cannot be drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from made_runs import make_run
from segfaith.results.figures.drawings import DRAWINGS
from segfaith.results.figures.save import entered, save_figures
from segfaith.results.figures.style import COLUMN_WIDTH, FULL_WIDTH, STYLE
from segfaith.results.figures.svg import inline_svg
from segfaith.results.records.runs import load_run
from segfaith.results.statistics.analysis import Analysis, DataAnalysis, Options, analyse


@pytest.fixture(scope="module")
def written(part: DataAnalysis, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("written")
    return folder / "figures", save_figures(Analysis((part,)), DRAWINGS, folder)


def test_all_figures_are_written_as_valid_png_and_pdf(written: tuple[Path, list[Path]]) -> None:
    folder, paths = written
    stems = [f"{name}-voc2012-val" for name in DRAWINGS if name != "failure"]
    assert paths == [*(folder / f"{stem}.{end}" for stem in stems for end in ("png", "pdf")), folder / "figures.md"]
    assert sorted(folder.iterdir()) == sorted(paths)
    for path in paths[:-1]:
        content = path.read_bytes()
        if path.suffix == ".pdf":
            assert content.startswith(b"%PDF-")
            assert content.rstrip().endswith(b"%%EOF")
            assert b"CreationDate" not in content
        else:
            with Image.open(path) as picture:
                picture.load()
                assert picture.format == "PNG"
                assert "Software" not in picture.info
                inches = picture.width / STYLE["savefig.dpi"]
            assert min(abs(inches - width) for width in (COLUMN_WIDTH, FULL_WIDTH)) < 0.01
            assert np.asarray(Image.open(path).convert("L")).std() > 5


def test_the_words_hold_captions_remarks_and_what_is_missing(
    part: DataAnalysis, written: tuple[Path, list[Path]]
) -> None:
    text = (written[0] / "figures.md").read_text(encoding="utf-8")
    drawn, missing = text.split("## Not drawn")
    assert missing.strip() == f"- `failure-voc2012-val`: {DRAWINGS['failure'](part).why}"
    assert drawn.startswith("# Figures\n\nAll images entered unless a caption says otherwise.\n\n## voc2012 val\n")
    for name, draw in DRAWINGS.items():
        if name != "failure":
            assert f"![{name}-voc2012-val]({name}-voc2012-val.png)\n\n{draw(part).caption}\n" in drawn
            assert all(f"- {remark}\n" in drawn for remark in draw(part).remarks)
    assert str(part.runs[0].directory) not in text


def test_what_entered_is_told() -> None:
    assert entered(Options(min_s=0.25)) == "Only images with s >= 0.25 entered unless a caption says otherwise."
    both = entered(Options(min_s=0.25, min_iou=0.1))
    assert both.startswith("Only images with s >= 0.25 and the IoU of the prediction >= 0.1 entered")


def test_what_cannot_be_drawn_loses_its_old_files_alone(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run", curves=False, maps=0, randomisation=False))
    old, others = tmp_path / "figures/curves-voc2012-val.pdf", tmp_path / "figures/curves-of-mine.pdf"
    old.parent.mkdir()
    old.write_text("old")
    others.write_text("mine")
    some = {name: DRAWINGS[name] for name in ("runs", "curves")}
    paths = save_figures(analyse([run]), some, tmp_path)
    assert [path.name for path in paths] == ["runs-voc2012-val.png", "runs-voc2012-val.pdf", "figures.md"]
    assert not old.exists()
    assert others.exists()
    missing = paths[-1].read_text(encoding="utf-8").split("## Not drawn")[1]
    assert missing.strip().startswith("- `curves-voc2012-val`: expected curves over at least two values of k; got 0")
    nothing = save_figures(analyse([run]), {"runs": DRAWINGS["runs"]}, tmp_path)[-1].read_text(encoding="utf-8")
    assert nothing.endswith("## Not drawn\n\nNothing is missing.\n")


def test_each_data_set_has_figures_of_its_own_and_the_same_data_the_same_bytes(
    part: DataAnalysis, written: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    """Also after the page has taken the figures as SVG."""
    some = {name: DRAWINGS[name] for name in ("mechanism", "tradeoff")}
    other = [
        replace(
            run, description=run.description | {"data": run.description["data"] | {"name": "sbd", "split": "train"}}
        )
        for run in part.runs
    ]
    analysis = analyse([*part.runs, *other])
    figure = DRAWINGS["tradeoff"](analysis.parts[0]).figure
    assert figure is not None
    inline_svg(figure, "first")
    names = [path.name for path in save_figures(analysis, some, tmp_path)]
    assert names == [
        f"{name}-{label}.{end}" for label in ("voc2012-val", "sbd-train") for name in some for end in ("png", "pdf")
    ] + ["figures.md"]
    for name in names[:4]:
        assert (tmp_path / "figures" / name).read_bytes() == (written[0] / name).read_bytes(), name
