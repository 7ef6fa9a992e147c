"""Images of any number of channels: arrays, TIFFs of several bands, ranges of values, and what is refused in words."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from segfaith import load_image
from segfaith.data.images import fit_channels, read_image, resize_image
from segfaith.data.reading import Reading
from segfaith.errors import SampleError, SettingsError

BANDS = np.random.default_rng(5).integers(0, 256, (4, 9, 12), dtype=np.uint8)
"""Four channels of 9 x 12."""
DEEP = BANDS.astype(np.uint16) * 16


def pixels(path: Path, **reading: object) -> np.ndarray:
    """(C, H, W) of a file, after the checks that hold for every image."""
    read = read_image(path, Reading(**reading))  # type: ignore[arg-type]
    image, orientation = read.image, read.orientation
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert image.ndim == 3
    assert float(image.min()) >= 0
    assert float(image.max()) <= 1
    assert orientation == 1
    return image.numpy()


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


# Channels


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_grey_files_have_one_channel(mode: str, tmp_path: Path) -> None:
    array = {"1": BANDS[0] > 99, "I;16": DEEP[0]}.get(mode, BANDS[0])
    picture = PillowImage.fromarray(array)
    if mode == "LA":
        picture.putalpha(255)
    picture.save(tmp_path / "a.png")
    assert PillowImage.open(tmp_path / "a.png").mode == mode
    top = {"1": 1, "I;16": 65535}.get(mode, 255)
    image = pixels(tmp_path / "a.png")
    assert image.shape == (1, 9, 12)
    np.testing.assert_allclose(image[0], array / top, atol=1e-7)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_other_photographs_have_three(mode: str, tmp_path: Path) -> None:
    PillowImage.fromarray(BANDS[:3].transpose(1, 2, 0)).convert(mode).save(tmp_path / "a.tif")
    assert pixels(tmp_path / "a.tif").shape == (3, 9, 12)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "named.npz"])
@pytest.mark.parametrize("last", [False, True])
def test_arrays_of_four_channels(name: str, last: bool, tmp_path: Path) -> None:
    array, path = BANDS.transpose(1, 2, 0) if last else BANDS, tmp_path / name
    if name == "a.npy":
        np.save(path, array)
    elif name == "a.npz":
        np.savez(path, anything=array)
    else:
        np.savez_compressed(path, other=np.zeros(3), image=array)
    for channels_first in (None, not last):
        assert np.array_equal(pixels(path, channels_first=channels_first), BANDS.astype(np.float32) / 255)


def test_an_array_of_two_dimensions_is_grey(tmp_path: Path) -> None:
    assert np.array_equal(pixels(saved(tmp_path / "a.npy", BANDS[0])), BANDS[:1].astype(np.float32) / 255)
    order = np.asfortranarray(BANDS[0])
    assert np.array_equal(pixels(saved(tmp_path / "f.npy", order)), BANDS[:1].astype(np.float32) / 255)


@pytest.mark.parametrize("shape", [(9, 4, 12), (4, 4, 9), (4, 9, 4), (17, 40, 50), (8, 8, 8)])
def test_sizes_that_do_not_tell_the_axis_of_channels(shape: tuple[int, ...], tmp_path: Path) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    path = saved(tmp_path / "a.npy", array)
    with pytest.raises(
        SampleError, match=rf"a\.npy has shape \({shape[0]}, .*; set \[data\] channels_first = true for"
    ):
        read_image(path)
    assert pixels(path, channels_first=True).shape == shape
    assert pixels(path, channels_first=False).shape == (shape[2], *shape[:2])


@given(st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20)))
@settings(max_examples=60, deadline=None)
def test_the_axis_of_channels_is_the_smallest_and_never_the_middle(shape: tuple[int, int, int]) -> None:
    from segfaith.data.arrays import channels_to_front

    array = np.zeros(shape)
    try:
        given_shape = channels_to_front(array, None, Path("x")).shape
    except SampleError:
        smallest = [axis for axis in range(3) if shape[axis] == min(shape)]
        assert len(smallest) > 1 or smallest == [1] or min(shape) > 16
        return
    count, *rest = given_shape
    assert count < min(rest)
    assert count <= 16
    assert given_shape == (shape if count == shape[0] else (shape[2], *shape[:2]))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 3, 9, 12), np.uint8), r"has shape \(2, 3, 9, 12\); expected \(H, W\), .* slice of a volume in a"),
        (np.zeros(9, np.uint8), r"has shape \(9,\)"),
        (np.zeros((0, 9), np.uint8), r"has shape \(0, 9\)"),
        (np.zeros((9, 12), complex), "dtype complex128; expected real numbers"),
        (np.zeros((9, 12), bool), "holds true and false, as masks do"),
        (np.array([["a"]]), "dtype <U1; expected real numbers"),
        (np.zeros((9, 12), [("x", "u1")]), "expected real numbers"),
        (np.array([[0.5, np.nan, np.inf, 0]], np.float32), r"has 2 values that are no finite numbers \(50\.00%\)"),
        (np.broadcast_to(np.uint8(0), (20000, 20000, 1)), "has 400000000 pixels"),
    ],
)
def test_arrays_that_are_no_images(array: np.ndarray, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    if array.size > 1e6:  # only the header is read
        with path.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": array.shape}
            np.lib.format.write_array_header_1_0(file, header)
    else:
        np.save(path, array)
    with pytest.raises(SampleError, match=rf"a\.npy.*{words}"):
        read_image(path, Reading(range=(0, 1)))


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[print]], object), allow_pickle=True)
    with pytest.raises(SampleError, match=r"a\.npy holds an array of dtype object; expected real numbers"):
        read_image(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_damaged_arrays(name: str, share: float, tmp_path: Path) -> None:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8)
    np.save(stream, noise) if name == "a.npy" else np.savez_compressed(stream, noise)
    content = stream.getvalue()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(SampleError, match=rf"{name} cannot be read as a NumPy array: \w+: ."):
        read_image(tmp_path / name)


def test_a_damaged_member_of_an_archive(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[300:340] = bytes(40)
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(SampleError, match=r"a\.npz cannot be read as a NumPy array: "):
        read_image(tmp_path / "a.npz")


def test_archives_that_do_not_say_which_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", red=BANDS[0], blue=BANDS[1])
    with pytest.raises(SampleError, match=r"two\.npz holds 2 arrays \(red, blue\); expected a single array, .*'image'"):
        read_image(tmp_path / "two.npz")
    zipfile.ZipFile(tmp_path / "none.npz", "w").close()
    with pytest.raises(SampleError, match=r"none\.npz holds 0 arrays"):
        read_image(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.nii", "NIfTI"), ("a.nii.gz", "NIfTI"), ("A.DCM", "DICOM"), ("a.nrrd", "NRRD"), ("a.mha", "MetaImage")],
)
def test_volumes_are_refused_in_words(name: str, form: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SampleError, match=f"is a {form} file; .* two dimensions: store each slice as an image"):
        read_image(tmp_path / name)


# TIFF


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "minisblack", "planarconfig": "separate"},
        {"photometric": "minisblack", "planarconfig": "contig"},
        {"photometric": "minisblack", "planarconfig": "contig", "compression": "zlib"},
        {"imagej": True, "metadata": {"axes": "CYX"}},
    ],
)
def test_tiffs_of_four_bands(options: dict[str, object], tmp_path: Path) -> None:
    array = BANDS.transpose(1, 2, 0) if options.get("planarconfig") == "contig" else BANDS
    tifffile.imwrite(tmp_path / "a.tif", array, **options)  # type: ignore[arg-type]
    assert np.array_equal(pixels(tmp_path / "a.tif"), BANDS.astype(np.float32) / 255)


def test_a_tiff_of_four_bands_of_a_photograph_and_one_more_keeps_all(tmp_path: Path) -> None:
    """Pillow would drop the fourth, which the file calls neither colour nor transparency."""
    PillowImage.fromarray(np.ascontiguousarray(BANDS.transpose(1, 2, 0)), "RGBX").save(tmp_path / "a.tif")
    assert np.array_equal(pixels(tmp_path / "a.tif"), BANDS.astype(np.float32) / 255)


def test_a_tiff_in_which_0_is_white_is_turned_by_pillow_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, BANDS[0], photometric="miniswhite")
    np.testing.assert_allclose(pixels(path)[0], 1 - BANDS[0] / np.float32(255), atol=1e-7)
    for array in (DEEP[0], DEEP[0].astype(np.float32), DEEP):
        tifffile.imwrite(path, array, photometric="miniswhite", planarconfig="separate" if array.ndim == 3 else None)
        with pytest.raises(SampleError, match=r"a\.tif says that 0 is white, .* store it with photometric MINISBLACK"):
            pixels(path, range=(0, 65535))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "float32", "float64"])
def test_tiffs_of_numbers_need_a_range(dtype: str, tmp_path: Path) -> None:
    for name, array in (("grey", DEEP[0]), ("bands", DEEP)):
        path = tmp_path / f"{name}.tif"
        options = {} if array.ndim == 2 else {"photometric": "minisblack", "planarconfig": "separate"}
        tifffile.imwrite(path, array.astype(dtype), **options)  # type: ignore[arg-type]
        low, high = DEEP[0].min() if array.ndim == 2 else DEEP.min(), array.max()
        words = (
            rf"{name}\.tif has dtype {dtype} with values {low:g} to {high:g}, whose range nobody can tell; set \[data"
        )
        with pytest.raises(SampleError, match=words):
            read_image(path)
        expected = array.reshape(-1, 9, 12) / 4080
        np.testing.assert_allclose(pixels(path, range=(0, 4080)), expected, atol=1e-7)


def test_a_compression_that_pillow_alone_reads(tmp_path: Path) -> None:
    PillowImage.fromarray(DEEP[0]).save(tmp_path / "a.tif", compression="tiff_lzw")
    np.testing.assert_allclose(pixels(tmp_path / "a.tif", range=(0, 4080))[0], DEEP[0] / 4080, atol=1e-7)


PAGES: dict[str, Callable[[Path], object]] = {
    "slices": lambda path: tifffile.imwrite(path, DEEP, imagej=True, metadata={"axes": "ZYX"}),
    "unnamed": lambda path: tifffile.imwrite(path, DEEP, photometric="minisblack"),
    "frames": lambda path: PillowImage.new("RGB", (12, 9)).save(
        path, save_all=True, append_images=[PillowImage.new("RGB", (12, 9))]
    ),
    "two images": lambda path: PillowImage.new("RGB", (12, 9)).save(
        path, save_all=True, append_images=[PillowImage.new("RGB", (16, 19))]
    ),
}


@pytest.mark.parametrize("kind", PAGES)
def test_pages_of_a_tiff_are_refused_in_words(kind: str, tmp_path: Path) -> None:
    PAGES[kind](tmp_path / "a.tif")
    words = r"a\.tif is a TIFF of \d+ pages .* store each slice as an image of its own.*channels_first = true"
    with pytest.raises(SampleError, match=words):
        read_image(tmp_path / "a.tif")


def test_pages_may_be_declared_channels_but_slices_not(tmp_path: Path) -> None:
    PAGES["unnamed"](tmp_path / "a.tif")
    assert np.array_equal(pixels(tmp_path / "a.tif", range=(0, 65535), channels_first=True).shape, (4, 9, 12))
    tifffile.imwrite(tmp_path / "b.tif", DEEP.transpose(1, 2, 0), photometric="minisblack")
    read = pixels(tmp_path / "b.tif", range=(0, 65535), channels_first=False)
    np.testing.assert_allclose(read, DEEP / 65535, atol=1e-7)
    PAGES["slices"](tmp_path / "z.tif")
    with pytest.raises(SampleError, match="axes ZYX"):
        read_image(tmp_path / "z.tif", Reading(channels_first=True, range=(0, 65535)))


def test_a_turned_tiff_of_bands_is_refused(tmp_path: Path) -> None:
    options = {"photometric": "minisblack", "planarconfig": "separate", "extratags": [(274, 3, 1, 6, True)]}
    tifffile.imwrite(tmp_path / "a.tif", BANDS, **options)  # type: ignore[arg-type]
    with pytest.raises(SampleError, match=r"a\.tif carries the orientation 6; expected 1: store it upright"):
        read_image(tmp_path / "a.tif")


def test_damaged_tiffs_of_bands(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", BANDS, photometric="minisblack", planarconfig="separate", compression="zlib")
    content = (tmp_path / "a.tif").read_bytes()
    for count in (4, 30, len(content) - 60):
        (tmp_path / "a.tif").write_bytes(content[:count])
        with pytest.raises(SampleError, match=r"image .*a\.tif cannot be read: ."):
            read_image(tmp_path / "a.tif")


# Ranges


def test_a_range_maps_values_and_each_channel_may_have_its_own(tmp_path: Path) -> None:
    values = np.array([[[0, 50], [100, 25]], [[-10, 0], [10, 5]]], np.float32)
    values = np.repeat(np.repeat(values, 2, 1), 2, 2)
    path = saved(tmp_path / "a.npy", values)
    np.testing.assert_allclose(pixels(path, range=(-100, 100)), (values + 100) / 200, atol=1e-7)
    image = pixels(path, range=[(0, 100), (-10, 10)])
    np.testing.assert_allclose(image[0], values[0] / 100, atol=1e-7)
    np.testing.assert_allclose(image[1], (values[1] + 10) / 20, atol=1e-7)


def test_values_outside_the_range_fail_or_are_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 50], [100, 25]], np.float64)
    path = saved(tmp_path / "a.npy", values)
    words = r"a\.npy has values 0 to 100 in channel 1; expected 10 to 60; widen \[data\] range, or set clip = true"
    with pytest.raises(SampleError, match=words):
        read_image(path, Reading(range=(10, 60)))
    expected = [[0, 0.8], [1, 0.3]]
    np.testing.assert_allclose(pixels(path, range=(10, 60), clip=True)[0], expected, atol=1e-7)
    assert np.allclose(load_image(path, channels=1, range=(10, 60), clip=True)[0], torch.tensor(expected))


def test_the_pixels_that_are_clipped_are_counted(tmp_path: Path) -> None:
    values = np.array([[[0, 10, 20, 40]], [[0, 50, 20, 40]]], np.int16)
    path = saved(tmp_path / "a.npy", values)
    counted = sum(any(not 5 <= channel[column] <= 40 for channel in values[:, 0]) for column in range(4))
    assert read_image(path, Reading(range=(5, 40), clip=True, channels_first=True)).clipped == counted / 4 == 0.5
    assert read_image(path, Reading(range=(0, 50), clip=True, channels_first=True)).clipped == 0
    grey = tmp_path / "b.tif"
    tifffile.imwrite(grey, values[0].astype(np.float32))
    assert read_image(grey, Reading(range=(5, 30), clip=True)).clipped == 0.5


def test_a_range_of_another_number_of_channels(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", DEEP)
    with pytest.raises(SampleError, match=r"has 4 channels and \[data\] range has 3 pairs; expected one pair, or one"):
        read_image(path, Reading(range=[(0, 1)] * 3))


@given(st.floats(-1e4, 1e4), st.floats(1e-2, 1e4), st.lists(st.floats(0, 1), min_size=4, max_size=4))
@settings(max_examples=40, deadline=None)
def test_the_range_is_undone(low: float, width: float, shares: list[float]) -> None:
    from segfaith.data.images import in_range

    values = (low + width * np.array(shares)).reshape(1, 2, 2)
    image, _ = in_range(values, Reading(range=(low, low + width), clip=True), Path("x"), None)
    np.testing.assert_allclose(image.numpy().ravel(), shares, atol=1e-6 + 1e-10 * abs(low) / width)


def test_a_range_of_an_eight_bit_file(tmp_path: Path) -> None:
    PillowImage.fromarray(BANDS[0] // 2).save(tmp_path / "a.png")
    np.testing.assert_allclose(pixels(tmp_path / "a.png", range=(0, 127))[0], BANDS[0] // 2 / 127, atol=1e-7)
    with pytest.raises(SampleError, match=r"a\.png is read with 8 bits \(mode L\), .* range goes beyond 255"):
        read_image(tmp_path / "a.png", Reading(range=(0, 4095)))


def test_a_range_of_a_sixteen_bit_png(tmp_path: Path) -> None:
    PillowImage.fromarray(DEEP[0]).save(tmp_path / "a.png")
    np.testing.assert_allclose(pixels(tmp_path / "a.png", range=(0, 4095))[0], DEEP[0] / 4095, atol=1e-7)


def test_an_array_of_zeros_and_ones_of_255_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", BANDS % 2)
    with pytest.raises(SampleError, match=r"a\.npy has only the values 0 and 1 of 0 to 255"):
        read_image(path)
    assert np.array_equal(pixels(path, range=(0, 1)), BANDS % 2)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"range": (1, 1)}, r"range = \[1, 1\]: expected two finite numbers, the lower first"),
        ({"range": [(0, 1), (5, float("inf"))]}, r"range = \[5, inf\]: expected two finite"),
        ({"range": []}, r"range = \[\]: expected \[low, high\], or a list of such pairs"),
        ({"range": (1, 2, 3)}, r"range = \[1, 2, 3\]: expected \[low, high\]"),
        ({"range": [(1, 2), (1, 2, 3)]}, r"range = .*: expected \[low, high\]"),
        ({"range": [(1, 2), 3]}, r"range = .*: expected \[low, high\]"),
        ({"clip": True}, r"clip = true needs \[data\] range"),
        ({"display": [1, 2]}, r"display = \[1, 2\]: expected three channels, counted from 1"),
        ({"display": [0, 1, 2]}, r"display = \[0, 1, 2\]: expected three channels, counted from 1"),
        ({"labels": {"1": "a"}, "foreground": 1}, "give labels or foreground, not both"),
        ({"foreground": 0}, "foreground = 0: the value 0 is the background"),
    ],
)
def test_settings_that_mean_nothing(keys: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Reading(**keys)  # type: ignore[arg-type]


# Fitting a model


def test_grey_fits_a_model_of_three_channels_and_back() -> None:
    grey = torch.rand(1, 4, 5)
    repeated = fit_channels(grey, 3)
    assert repeated.is_contiguous()
    assert torch.equal(repeated, torch.stack([grey[0]] * 3))
    assert torch.equal(fit_channels(repeated, 1), grey)
    many = torch.rand(7, 4, 5)
    assert fit_channels(many, 7) is many


@pytest.mark.parametrize(("count", "channels"), [(4, 3), (1, 4), (3, 4), (2, 3), (2, 1), (4, 1)])
def test_channels_that_do_not_fit(count: int, channels: int) -> None:
    words = f"the image has {count} channels? and the model takes {channels}; store the image with the {channels} chan"
    with pytest.raises(SampleError, match=words):
        fit_channels(torch.rand(count, 4, 5), channels)


def test_colour_is_not_turned_to_grey_for_a_model_of_one_channel() -> None:
    image = torch.full((3, 4, 5), 0.5)
    image[2, 0, 0] = 0.6
    with pytest.raises(SampleError, match=r"in colour \(3 channels that differ\) and the model takes 1 channel; store"):
        fit_channels(image, 1)


def test_load_image_fits_and_resizes(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", DEEP)
    image = load_image(path, 6, channels=4, range=(0, 4080))
    assert image.shape == (4, 6, 6)
    assert torch.equal(image, resize_image(torch.from_numpy((DEEP / 4080).astype(np.float32)), 6))
    with pytest.raises(SampleError, match="the image has 4 channels and the model takes 3"):
        load_image(path, range=(0, 4080))


@given(st.integers(1, 6), st.integers(2, 9), st.integers(2, 9), st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_channels_are_resized_each_by_itself(channels: int, height: int, width: int, size: int) -> None:
    image = torch.rand(channels, height, width)
    alone = torch.cat([resize_image(image[[channel]], size) for channel in range(channels)])
    assert torch.allclose(resize_image(image, size), alone, atol=1e-6)


def test_channels_that_a_file_marks_as_transparency_are_explained(tmp_path: Path) -> None:
    PillowImage.fromarray(np.ascontiguousarray(BANDS.transpose(1, 2, 0)), "RGBA").save(tmp_path / "a.png")
    with pytest.raises(SampleError, match=r"3 channels and the model takes 4; .* marks as transparency counts as none"):
        load_image(tmp_path / "a.png", channels=4)
    with pytest.raises(SampleError, match=r"use a model of 3$"):
        fit_channels(torch.zeros(3, 4, 4), 5)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"range": 100}, r"range = \[100\]: expected \[low, high\]"),
        ({"size": 0}, r"size = 0: expected the side of a square"),
        ({"size": (4, 4)}, r"size = \(4, 4\): expected the side of a square in pixels, .* 'native'"),
    ],
)
def test_arguments_that_mean_nothing(wrong: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=words):
        load_image(saved(tmp_path / "a.npy", BANDS), channels=4, **wrong)  # type: ignore[arg-type]
