"""Data: honest conversion of image files, the protocol's resizing, and data sets by id."""

import hashlib
import re
import shutil
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets.voc as torchvision_voc
from PIL import Image as PillowImage
from scipy.io import loadmat, savemat
from torch import Tensor
from torchvision.datasets import SBDataset
from typer.testing import CliRunner

from segfaith import load_image
from segfaith.classes import VOC_CLASSES, class_index, read_classes
from segfaith.cli import app
from segfaith.data import Dataset, open_dataset
from segfaith.data.images import resize_image, resize_labels
from segfaith.data.masks import read_labels
from segfaith.errors import SampleError, SettingsError
from segfaith.types import Sample
from servers import FileServer, serve, unreachable_url

COLOURS = np.random.default_rng(7).integers(0, 256, (4, 6, 3), dtype=np.uint8)
GREYS = COLOURS[..., 0].copy()


def numpy_image(image: Tensor) -> np.ndarray:
    """(H, W, 3) of what `load_image` returned, after the checks that hold for every image."""
    assert image.dtype == torch.float32
    assert image.ndim == 3
    assert image.shape[0] == 3
    assert image.is_contiguous()
    assert float(image.min()) >= 0
    assert float(image.max()) <= 1
    return image.permute(1, 2, 0).numpy()


def loaded(path: Path) -> np.ndarray:
    return numpy_image(load_image(path))


def rgb(grey: np.ndarray) -> np.ndarray:
    """Three equal channels."""
    return np.repeat(grey[..., None], 3, axis=2)


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colour and opacity in [0, 255] over white, in [0, 1]."""
    opacity = alpha[..., None] / 255
    return opacity * colour / 255 + (1 - opacity)


def png(header: tuple[int, int, int, int], rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand, for what Pillow does not write; header is width, height, bit depth, colour type."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0))
    middle = b"".join(chunk(kind, content) for kind, content in extra)
    return b"\x89PNG\r\n\x1a\n" + start + middle + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# Image files to RGB


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "ppm", "webp"])
def test_rgb_without_loss(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    PillowImage.fromarray(COLOURS).save(path, **({"lossless": True} if ending == "webp" else {}))
    assert np.array_equal(loaded(path), COLOURS.astype(np.float32) / 255)


def test_rgb_jpeg(tmp_path: Path) -> None:
    plain = np.zeros((16, 16, 3), np.uint8) + np.array([200, 60, 120], np.uint8)
    PillowImage.fromarray(plain).save(tmp_path / "a.jpg", quality=95)
    assert np.allclose(loaded(tmp_path / "a.jpg"), plain / 255, atol=2.5 / 255)


def test_a_path_may_be_a_string_and_size_a_number(tmp_path: Path) -> None:
    PillowImage.fromarray(COLOURS).save(tmp_path / "a.png")
    assert load_image(str(tmp_path / "a.png")).shape == (3, 4, 6)
    assert numpy_image(load_image(tmp_path / "a.png", 5)).shape == (5, 5, 3)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_grey(ending: str, tmp_path: Path) -> None:
    PillowImage.fromarray(GREYS).save(tmp_path / f"a.{ending}")
    assert np.array_equal(loaded(tmp_path / f"a.{ending}"), rgb(GREYS).astype(np.float32) / 255)


def test_grey_jpeg(tmp_path: Path) -> None:
    PillowImage.new("L", (16, 16), 77).save(tmp_path / "a.jpg")
    assert np.allclose(loaded(tmp_path / "a.jpg"), 77 / 255, atol=1 / 255)


def test_one_bit(tmp_path: Path) -> None:
    bits = GREYS > 127
    PillowImage.fromarray(bits).save(tmp_path / "a.png")
    assert PillowImage.open(tmp_path / "a.png").mode == "1"
    assert np.array_equal(loaded(tmp_path / "a.png"), rgb(bits).astype(np.float32))


def test_transparent_pixels_lie_over_white(tmp_path: Path) -> None:
    alpha = np.array([[0, 255, 128, 64, 1, 254]] * 4, np.uint8)
    PillowImage.fromarray(np.dstack([COLOURS, alpha])).save(tmp_path / "rgba.png")
    image = loaded(tmp_path / "rgba.png")
    assert np.allclose(image, over_white(COLOURS, alpha), atol=1.01 / 255)
    assert (image[:, 0] == 1).all()
    assert np.array_equal(image[:, 1], COLOURS[:, 1].astype(np.float32) / 255)


def test_grey_with_alpha_lies_over_white(tmp_path: Path) -> None:
    alpha = np.array([[0, 255, 128, 64, 1, 254]] * 4, np.uint8)
    PillowImage.merge("LA", (PillowImage.fromarray(GREYS), PillowImage.fromarray(alpha))).save(tmp_path / "la.png")
    assert PillowImage.open(tmp_path / "la.png").mode == "LA"
    assert np.allclose(loaded(tmp_path / "la.png"), over_white(rgb(GREYS), alpha), atol=1.01 / 255)


PALETTE = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 60, 200]], np.uint8)
INDICES = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.uint8)


def palette_picture(indices: np.ndarray = INDICES, palette: np.ndarray = PALETTE) -> PillowImage.Image:
    picture = PillowImage.fromarray(indices)
    picture.putpalette(palette.flatten().tolist())
    return picture


def test_palette(tmp_path: Path) -> None:
    palette_picture().save(tmp_path / "p.png")
    assert PillowImage.open(tmp_path / "p.png").mode == "P"
    assert np.array_equal(loaded(tmp_path / "p.png"), PALETTE[INDICES].astype(np.float32) / 255)


@pytest.mark.parametrize(
    ("transparency", "alpha"), [(1, [255, 0, 255, 255]), (bytes([255, 0, 51, 255]), [255, 0, 51, 255])]
)
def test_palette_with_transparency(transparency: int | bytes, alpha: list[int], tmp_path: Path) -> None:
    palette_picture().save(tmp_path / "p.png", transparency=transparency)
    expected = over_white(PALETTE[INDICES], np.array(alpha)[INDICES])
    assert np.allclose(loaded(tmp_path / "p.png"), expected, atol=1.01 / 255)


def test_one_transparent_colour_without_an_alpha_channel(tmp_path: Path) -> None:
    grey = np.array([[0, 100, 200]], np.uint8)
    PillowImage.fromarray(grey).save(tmp_path / "l.png", transparency=100)
    assert np.allclose(loaded(tmp_path / "l.png")[0, :, 0], [0, 1, 200 / 255])
    colour = np.array([[[0, 100, 200], [1, 2, 3]]], np.uint8)
    PillowImage.fromarray(colour).save(tmp_path / "rgb.png", transparency=(1, 2, 3))
    assert np.allclose(loaded(tmp_path / "rgb.png"), [[[0, 100 / 255, 200 / 255], [1, 1, 1]]])


DEEP = np.array([[0, 1, 255, 256], [30000, 40000, 65534, 65535]], np.uint16)


@pytest.mark.parametrize("file", ["a.png", "a.pgm"])
def test_sixteen_bit_grey_keeps_its_range(file: str, tmp_path: Path) -> None:
    if file == "a.pgm":
        (tmp_path / file).write_bytes(b"P5 4 2 65535\n" + DEEP.astype(">u2").tobytes())
    else:
        PillowImage.fromarray(DEEP).save(tmp_path / file)
    image = loaded(tmp_path / file)
    assert np.allclose(image, rgb(DEEP) / 65535, rtol=0, atol=1e-7)
    assert image[1, 3, 0] == 1
    assert 0 < image[0, 1, 0] < 1e-4


def test_pgm_of_twelve_bits_uses_its_own_range(tmp_path: Path) -> None:
    values = np.array([[0, 1000, 4095]], ">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 4095\n" + values.tobytes())
    assert np.allclose(loaded(tmp_path / "a.pgm")[0, :, 0], [0, 1000 / 4095, 1], atol=2e-5)


def test_sixteen_bit_colour(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (2, 3, 3))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    (tmp_path / "a.png").write_bytes(png((3, 2, 16, 2), rows))
    assert np.allclose(loaded(tmp_path / "a.png"), deep / 65535, atol=1.01 / 255)


def test_sixteen_bit_grey_with_alpha(tmp_path: Path) -> None:
    grey, alpha = np.array([[0, 30000, 60000, 60000]]), np.array([[65535, 0, 65535, 32768]])
    rows = b"\0" + np.dstack([grey, alpha]).astype(">u2").tobytes()
    (tmp_path / "a.png").write_bytes(png((4, 1, 16, 4), rows))
    expected = rgb(alpha / 65535 * (grey / 65535) + 1 - alpha / 65535)
    assert np.allclose(loaded(tmp_path / "a.png"), expected, atol=2.01 / 255)


def test_sixteen_bit_grey_with_a_transparent_value(tmp_path: Path) -> None:
    rows = b"\0" + np.array([0, 1000, 60000], ">u2").tobytes()
    (tmp_path / "a.png").write_bytes(png((3, 1, 16, 0), rows, (b"tRNS", struct.pack(">H", 1000))))
    assert np.allclose(loaded(tmp_path / "a.png")[0, :, 0], [0, 1, 60000 / 65535], atol=1e-6)


def test_float_grey_in_range(tmp_path: Path) -> None:
    values = np.array([[0, 0.25, 0.123456], [1, 0.5, 0.75]], np.float32)
    PillowImage.fromarray(values).save(tmp_path / "f.tif")
    assert np.array_equal(numpy_image(load_image(tmp_path / "f.tif", range=(0, 1))), rgb(values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[0, 0.5]], np.float32), "dtype float32 with values 0 to 0.5"),
        (np.array([[-0.5, 1]], np.float32), "dtype float32 with values -0.5 to 1"),
        (np.array([[0, 70000]], np.int32), "dtype int32 with values 0 to 70000"),
        (np.array([[0, 4095]], np.uint16), "dtype uint16 with values 0 to 4095"),
    ],
)
def test_values_without_a_defined_range_are_refused(values: np.ndarray, words: str, tmp_path: Path) -> None:
    PillowImage.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(SampleError, match=rf"a\.tif has {words}, whose range .* set \[data\] range = \[LOW, HIGH\]"):
        load_image(tmp_path / "a.tif")


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_cmyk(ending: str, tmp_path: Path) -> None:
    """R = (1 - C)(1 - K), and so on; a constant picture survives JPEG."""
    PillowImage.new("CMYK", (8, 8), (100, 90, 200, 30)).save(tmp_path / f"a.{ending}", quality=100)
    assert PillowImage.open(tmp_path / f"a.{ending}").mode == "CMYK"
    expected = [(1 - ink / 255) * (1 - 30 / 255) for ink in (100, 90, 200)]
    assert np.allclose(loaded(tmp_path / f"a.{ending}"), expected, atol=2 / 255)


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_exif_orientation(orientation: int, ending: str, tmp_path: Path) -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    PillowImage.fromarray(COLOURS).save(tmp_path / f"a.{ending}", exif=exif)
    image = loaded(tmp_path / f"a.{ending}")
    assert image.shape[:2] == ((6, 4) if orientation >= 5 else (4, 6))
    assert np.array_equal(image, UPRIGHT[orientation](COLOURS).astype(np.float32) / 255)


def test_exif_orientation_of_a_jpeg(tmp_path: Path) -> None:
    """A camera held upright: the stored left edge becomes the top."""
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :16] = (250, 10, 10)
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    PillowImage.fromarray(stored).save(tmp_path / "a.jpg", exif=exif)
    image = loaded(tmp_path / "a.jpg")
    assert image.shape == (32, 16, 3)
    assert image[2, :, 0].min() > 0.9
    assert image[29, :, 0].max() < 0.1


def test_exif_orientation_beside_a_malformed_tag(tmp_path: Path) -> None:
    """Cameras write such tags (here the resolution's unit as text); the photograph is still one."""
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    malformed = struct.pack("<HHI4s", 0x0128, 2, 3, b"in\0\0")
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + orientation + malformed + bytes(4)
    PillowImage.fromarray(COLOURS).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(loaded(tmp_path / "a.png"), np.rot90(COLOURS, -1).astype(np.float32) / 255)


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [palette_picture(np.full((4, 6), i, np.uint8)) for i in (2, 1, 0)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert PillowImage.open(tmp_path / "a.gif").n_frames == 3
    assert np.array_equal(loaded(tmp_path / "a.gif"), np.broadcast_to([0, 0, 1], (4, 6, 3)))


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "gif"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files(ending: str, share: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = tmp_path / f"a.{ending}"
    PillowImage.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(SampleError, match=rf"image .*a\.{ending} cannot be read: ."):
        load_image(path)


@pytest.mark.parametrize("content", [b"", b"these are words, not pixels", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_no_images(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(SampleError, match=r"image .*a\.png cannot be read: ."):
        load_image(tmp_path / "a.png")
    with pytest.raises(SampleError, match=r"label mask .*a\.png cannot be read: ."):
        read_labels(tmp_path / "a.png")[0]


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r"image .*gone\.jpg cannot be read: .*No such file"):
        load_image(tmp_path / "gone.jpg")
    with pytest.raises(SampleError, match="cannot be read"):
        load_image(tmp_path)
    with pytest.raises(SampleError, match=r"label mask .*gone\.png cannot be read: .*No such file"):
        read_labels(tmp_path / "gone.png")[0]


# Labels


@pytest.mark.parametrize("mode", ["P", "L"])
def test_labels_are_pixel_values(mode: str, tmp_path: Path) -> None:
    values = np.array([[0, 1, 20], [255, 128, 3]], np.uint8)
    picture = PillowImage.fromarray(values)
    if mode == "P":
        picture.putpalette([5, 6, 7] * 256)
    picture.save(tmp_path / "a.png")
    assert PillowImage.open(tmp_path / "a.png").mode == mode
    labels = read_labels(tmp_path / "a.png")[0]
    assert labels.dtype == torch.int64
    assert labels.tolist() == values.tolist()


def test_labels_of_one_and_of_sixteen_bits(tmp_path: Path) -> None:
    PillowImage.fromarray(np.array([[True, False, True]])).save(tmp_path / "one.png")
    assert read_labels(tmp_path / "one.png")[0].tolist() == [[1, 0, 1]]
    PillowImage.fromarray(np.array([[300, 0, 255]], np.uint16)).save(tmp_path / "sixteen.png")
    assert read_labels(tmp_path / "sixteen.png")[0].tolist() == [[300, 0, 255]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colour_masks_are_refused(mode: str, tmp_path: Path) -> None:
    PillowImage.new(mode, (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(SampleError, match=rf"a\.png has mode {mode}; expected palette \(P\) or index \(L, I;16\)"):
        read_labels(tmp_path / "a.png")[0]


@pytest.mark.parametrize("form", ["JPEG", "TIFF", "PPM", "BMP", pytest.param("WEBP", id="lossy WebP")])
def test_masks_of_other_formats_are_refused_whatever_their_name(form: str, tmp_path: Path) -> None:
    """A JPEG's labels blur at edges, though most of its values are in range; a PGM's are scaled to 255."""
    labels = np.zeros((16, 16), np.uint8)
    labels[4:10, 5:11] = 9
    PillowImage.fromarray(labels).save(tmp_path / "a.png", form)
    with pytest.raises(SampleError, match=rf"label mask .*a\.png is stored as {form}, whatever its name; expected PNG"):
        read_labels(tmp_path / "a.png")[0]


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_masks_of_few_bits_are_refused_and_palettes_of_few_bits_are_read(bits: int, tmp_path: Path) -> None:
    """Pillow makes 17 of a 1 of four grey bits; indices of a palette stay what they are."""
    row = bytes([0b00011011]) if bits == 2 else bytes([0x01, 0x23])
    for colour, name in ((0, "grey"), (3, "palette")):
        chunks = [(b"IHDR", struct.pack(">IIBBBBB", 4, 1, bits, colour, 0, 0, 0)), (b"PLTE", bytes(range(12)))]
        chunks = [*chunks[: 2 if colour else 1], (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
        whole = [
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        ]
        (tmp_path / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(whole))
    assert read_labels(tmp_path / "palette.png")[0].tolist() == [[0, 1, 2, 3]]
    with pytest.raises(SampleError, match=rf"grey\.png is grey of {bits} bits, .*; expected 8 bits, or a palette"):
        read_labels(tmp_path / "grey.png")[0]


def test_a_mask_of_several_frames_is_refused(tmp_path: Path) -> None:
    frames = [PillowImage.fromarray(np.full((4, 6), i, np.uint8)) for i in (1, 2, 3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(SampleError, match=r"label mask .*a\.png holds 3 frames; expected one"):
        read_labels(tmp_path / "a.png")[0]


def test_an_image_of_zeros_and_ones_of_255_is_refused_and_black_and_one_bit_are_read(tmp_path: Path) -> None:
    values = (np.arange(24).reshape(4, 6) % 2).astype(np.uint8)
    for name, array in (("grey", values), ("colour", np.stack([values] * 3, -1))):
        PillowImage.fromarray(array).save(tmp_path / f"{name}.png")
        with pytest.raises(
            SampleError, match=rf"{name}\.png has only the values 0 and 1 of 0 to 255, .*multiply by 255"
        ):
            load_image(tmp_path / f"{name}.png")
    PillowImage.fromarray(values.astype(bool)).save(tmp_path / "bit.png")
    assert np.array_equal(loaded(tmp_path / "bit.png")[..., 0], values)
    PillowImage.fromarray(values * 0).save(tmp_path / "black.png")
    assert loaded(tmp_path / "black.png").max() == 0


# Resizing


@pytest.mark.parametrize(
    ("shape", "size"), [((50, 70), 28), ((28, 29), 28), ((9, 7), 24), ((100, 3), 13), ((375, 50), 56), ((1, 1), 5)]
)
def test_resizing_is_bilinear_with_antialias(shape: tuple[int, int], size: int, rng: np.random.Generator) -> None:
    """Pillow's own resampling, channel by channel, in floating point."""
    values = rng.random((3, *shape), dtype=np.float32)
    resized = resize_image(torch.from_numpy(values), size).numpy()
    assert resized.shape == (3, size, size)
    for channel in range(3):
        picture = PillowImage.fromarray(values[channel]).resize((size, size), PillowImage.Resampling.BILINEAR)
        assert np.allclose(resized[channel], np.asarray(picture), atol=1e-4)


def test_resizing_by_hand() -> None:
    """Halving: each new pixel is the triangle-weighted mean (1, 3, 3, 1) / 8, renormalised at the border."""
    row = torch.tensor([0.0, 0.2, 0.4, 1.0, 0.6, 0.1])
    resized = resize_image(row.expand(3, 6, 6), 3)
    expected = [
        (3 * 0.0 + 3 * 0.2 + 1 * 0.4) / 7,
        (0.2 + 3 * 0.4 + 3 * 1.0 + 0.6) / 8,
        (1.0 + 3 * 0.6 + 3 * 0.1) / 7,
    ]
    assert torch.allclose(resized, torch.tensor(expected).expand(3, 3, 3), atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("size", [7, 60])
def test_a_constant_image_stays_constant_and_in_range(value: float, size: int) -> None:
    resized = resize_image(torch.full((3, 33, 21), value), size)
    assert torch.allclose(resized, torch.tensor(value), atol=1e-6)
    numpy_image(resized.contiguous())


def test_native_and_equal_sizes_change_nothing(rng: np.random.Generator) -> None:
    image = torch.from_numpy(rng.random((3, 5, 5), dtype=np.float32))
    labels = torch.arange(25).reshape(5, 5)
    for size in ("native", 5):
        assert torch.equal(resize_image(image, size), image)
        assert torch.equal(resize_labels(labels, size), labels)


@pytest.mark.parametrize(
    "shape", [(375, 500), (333, 500), (500, 375), (281, 500), (17, 23), (3, 2), (1, 9), (480, 640)]
)
@pytest.mark.parametrize("size", [224, 28, 33])
def test_nearest_takes_the_pixel_under_the_centre(shape: tuple[int, int], size: int) -> None:
    """Row i comes from floor((i + 1/2) H / size), in whole numbers; columns alike."""
    labels = torch.arange(shape[0] * shape[1]).reshape(shape)
    rows, columns = ([(2 * i + 1) * length // (2 * size) for i in range(size)] for length in shape)
    resized = resize_labels(labels, size)
    assert resized.dtype == torch.int64
    assert np.array_equal(resized.numpy(), labels.numpy()[np.ix_(rows, columns)])


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((375, 500), 224),
        ((500, 333), 224),
        ((281, 77), 224),
        ((375, 499), 15),
        ((17, 23), 15),
        ((3, 5), 15),
        ((1, 9), 56),
    ],
)
def test_nearest_equals_pillows(shape: tuple[int, int], size: int, rng: np.random.Generator) -> None:
    labels = rng.choice(np.array([*range(21), 255], np.uint8), shape)
    expected = PillowImage.fromarray(labels).resize((size, size), PillowImage.Resampling.NEAREST)
    resized = resize_labels(torch.from_numpy(labels.astype(np.int64)), size)
    assert np.array_equal(resized.numpy(), np.asarray(expected))


# Class names


def test_class_names_of_voc() -> None:
    names = read_classes("voc")
    assert names is not None
    assert len(names) == 21
    assert [names[i] for i in (0, 1, 8, 12, 15, 20)] == ["background", "aeroplane", "cat", "dog", "person", "tvmonitor"]
    names.append("changed")
    assert len(VOC_CLASSES) == 21


def test_class_names_from_a_list_and_a_file(tmp_path: Path) -> None:
    assert read_classes(None) is None
    assert read_classes(("sky", "sea")) == ["sky", "sea"]
    (tmp_path / "names.txt").write_bytes("sky\r\n  sea \n\nnaïve land\n".encode())
    assert read_classes(tmp_path / "names.txt") == ["sky", "sea", "naïve land"]
    assert read_classes(str(tmp_path / "names.txt")) == ["sky", "sea", "naïve land"]


def test_unusable_class_names(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no class-name file .*gone\.txt; expected 'voc', a list, or a file"):
        read_classes(tmp_path / "gone.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(SettingsError, match=r"at least one and all different; got \[\]"):
        read_classes(tmp_path / "empty.txt")
    with pytest.raises(SettingsError, match=r"all different; got \['cat', 'dog', 'cat'\]"):
        read_classes(["cat", "dog", "cat"])


def test_the_index_of_a_class() -> None:
    assert class_index(7, None) == 7
    assert class_index("dog", ["background", "cat", "dog"]) == 2
    with pytest.raises(SettingsError, match="unknown class 'dgo'; the classes are background, cat, dog"):
        class_index("dgo", ["background", "cat", "dog"])
    with pytest.raises(SettingsError, match="class 'dog' is given by name, but the model has no class names; give its"):
        class_index("dog", None)


# Folders


def write_folder(base: Path, masks: dict[str, np.ndarray], ending: str = "png") -> None:
    """An image for each mask, of its size; the image's value tells its number."""
    (base / "images").mkdir(parents=True)
    (base / "masks").mkdir()
    for number, (name, mask) in enumerate(masks.items()):
        picture = np.full((*mask.shape, 3), 10 * number, np.uint8)
        PillowImage.fromarray(picture).save(base / "images" / f"{name}.{ending}")
        PillowImage.fromarray(mask.astype(np.uint8)).save(base / "masks" / f"{name}.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three samples of 6 x 4 and three classes."""
    masks = {name: np.full((6, 4), i) for i, name in enumerate(("b", "a", "c"))}
    masks["a"][0, 0] = 255
    write_folder(tmp_path / "set", masks)
    (tmp_path / "set" / "classes.txt").write_text("background\ncat\ndog\n")
    return tmp_path / "set"


def test_a_folder(folder: Path) -> None:
    data = open_dataset("folder", folder)
    assert data.name == "folder"
    assert list(data.classes or []) == ["background", "cat", "dog"]
    assert sorted(data.ids) == ["a", "b", "c"]
    sample = data.load("a", "native")
    assert sample.id == "a"
    assert sample.image.shape == (3, 6, 4)
    assert torch.allclose(sample.image, torch.tensor(10 / 255))
    assert sample.labels.tolist() == [[255, 1, 1, 1]] + [[1, 1, 1, 1]] * 5


def test_a_folders_samples_are_resized(folder: Path) -> None:
    sample = open_dataset("folder", str(folder)).load("a", 12)
    assert sample.image.shape == (3, 12, 12)
    assert sample.labels.shape == (12, 12)
    assert int((sample.labels == 255).sum()) == 2 * 3
    assert set(sample.labels.unique().tolist()) == {1, 255}


def test_a_folder_with_other_image_formats_and_hidden_files(tmp_path: Path) -> None:
    write_folder(tmp_path, {"x": np.ones((16, 16))}, "jpg")
    (tmp_path / "images" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "masks" / ".x2.png").write_bytes(b"x")
    data = open_dataset("folder", tmp_path, classes=["background", "cat"])
    assert list(data.ids) == ["x"]
    assert data.load("x", "native").image.shape == (3, 16, 16)


def test_a_folder_with_splits(folder: Path) -> None:
    write_folder(folder / "val", {"v": np.ones((4, 4))})
    write_folder(folder / "train", {"t": np.ones((4, 4)), "u": np.ones((4, 4))})
    assert list(open_dataset("folder", folder, "val").ids) == ["v"]
    assert sorted(open_dataset("folder", folder, "train").ids) == ["t", "u"]
    assert list(open_dataset("folder", folder, "val").classes or []) == ["background", "cat", "dog"]


def test_a_folder_without_the_split(folder: Path) -> None:
    """`root` itself is the split `val`, and no other."""
    assert sorted(open_dataset("folder", folder, "val").ids) == ["a", "b", "c"]
    with pytest.raises(SettingsError, match=r"expected the folder .*test.images for split 'test'; make it"):
        open_dataset("folder", folder, "test")


def test_a_folder_without_class_names(folder: Path) -> None:
    (folder / "classes.txt").unlink()
    with pytest.raises(SettingsError, match=r"there is no .*classes\.txt; write it, .* or set \[data\] classes"):
        open_dataset("folder", folder)
    assert open_dataset("folder", folder, classes=["x", "y", "z"]).classes == ["x", "y", "z"]


@pytest.mark.parametrize("missing", ["images", "masks", "."])
def test_a_folder_without_its_folders(missing: str, folder: Path) -> None:
    shutil.rmtree(folder / missing)
    with pytest.raises(SettingsError, match=r"expected the folders .*images and .*masks; make them or change \[data\]"):
        open_dataset("folder", folder)


def test_a_folder_without_images(folder: Path) -> None:
    for path in (folder / "images").iterdir():
        path.unlink()
    with pytest.raises(SettingsError, match="images holds no files; expected at least one image"):
        open_dataset("folder", folder)


def test_two_images_of_one_name(folder: Path) -> None:
    PillowImage.fromarray(COLOURS).save(folder / "images" / "b.jpg")
    with pytest.raises(SettingsError, match=r"two images share the name 'b' in .*images; names without ending are ids"):
        open_dataset("folder", folder)


def test_a_missing_mask_concerns_only_its_sample(folder: Path) -> None:
    (folder / "masks" / "b.png").unlink()
    data = open_dataset("folder", folder)
    assert sorted(data.ids) == ["a", "b", "c"]
    with pytest.raises(SampleError, match=r"label mask .*b\.png cannot be read: .*No such file"):
        data.load("b", "native")
    assert data.load("c", "native").labels.unique().tolist() == [2]


@pytest.mark.parametrize("value", [3, 7, 254])
def test_a_label_out_of_range(value: int, folder: Path) -> None:
    mask = np.ones((6, 4), np.uint8)
    mask[5, 3] = value
    PillowImage.fromarray(mask).save(folder / "masks" / "b.png")
    message = f"label {value} is out of range; expected 0 to 2, or 255 for ignored pixels"
    with pytest.raises(SampleError, match=message):
        open_dataset("folder", folder).load("b", "native")
    with pytest.raises(SampleError, match=message):
        open_dataset("folder", folder).load("b", 2)


def test_the_highest_label_and_255_are_in_range(folder: Path) -> None:
    PillowImage.fromarray(np.array([[2, 255, 0, 1]] * 6, np.uint8)).save(folder / "masks" / "b.png")
    assert open_dataset("folder", folder).load("b", "native").labels[0].tolist() == [2, 255, 0, 1]


def test_sizes_that_disagree(folder: Path) -> None:
    PillowImage.fromarray(np.ones((4, 6), np.uint8)).save(folder / "masks" / "b.png")
    message = re.escape("image and label mask differ in size: (6, 4) and (4, 6) (height, width)")
    with pytest.raises(SampleError, match=message):
        open_dataset("folder", folder).load("b", 8)


def save_pair(root: Path, image: tuple[np.ndarray, int], mask: tuple[np.ndarray, int]) -> None:
    """The pair "b" of a folder, each with the EXIF orientation beside it; 1 writes none."""
    for name, (array, orientation) in (("images", image), ("masks", mask)):
        exif = PillowImage.Exif()
        if orientation != 1:
            exif[0x0112] = orientation
        PillowImage.fromarray(array).save(root / name / "b.png", exif=exif)


STORED = np.array([[1, 1, 0, 2, 0, 0], [0, 1, 0, 0, 2, 0], [0, 0, 0, 0, 2, 2], [255, 0, 0, 0, 0, 2]], np.uint8)
"""Labels 4 x 6 without symmetry."""


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_a_mask_is_turned_as_its_image_is(orientation: int, folder: Path) -> None:
    """Where the mask carries the tag too, and where the sizes tell; the image shows the labels as its colours."""
    shown = np.ascontiguousarray(UPRIGHT[orientation](STORED[..., None])[..., 0])
    colours = np.stack([STORED] * 3, -1)
    masks = [(STORED, orientation)]
    if orientation >= 5:
        masks += [(STORED, 1), (shown, 1)]
    for mask in masks:
        save_pair(folder, (colours, orientation), mask)
        sample = open_dataset("folder", folder).load("b", "native")
        assert sample.labels.tolist() == shown.tolist()
        assert (sample.image[0] * 255).round().to(torch.int64).tolist() == shown.tolist()


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("tagged", ["image", "mask"])
def test_a_pair_of_which_only_one_carries_an_orientation_fails_where_the_sizes_do_not_tell(
    orientation: int, tagged: str, folder: Path
) -> None:
    labels = STORED[:, :4] if orientation >= 5 else STORED
    colours, (first, second) = np.stack([labels] * 3, -1), (orientation, 1) if tagged == "image" else (1, orientation)
    save_pair(folder, (colours, first), (labels, second))
    words = (
        rf"image carries the EXIF orientation {first} and its label mask {second} .*store both upright \(PIL.ImageOps"
    )
    with pytest.raises(SampleError, match=words):
        open_dataset("folder", folder).load("b", "native")


def test_a_turned_image_with_a_mask_of_another_size_differs_in_size(folder: Path) -> None:
    save_pair(folder, (np.stack([STORED] * 3, -1), 6), (STORED[:3], 1))
    with pytest.raises(SampleError, match=r"differ in size: \(4, 6\) and \(3, 6\)"):
        open_dataset("folder", folder).load("b", "native")


def test_broken_links_are_samples_that_fail(folder: Path) -> None:
    (folder / "images" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "images" / "ring.png").symlink_to(folder / "images" / "ring.png")
    data = open_dataset("folder", folder)
    assert sorted(data.ids) == ["a", "b", "c", "gone", "ring"]
    for sample_id, words in (("gone", r"gone\.jpg"), ("ring", r"ring\.png")):
        with pytest.raises(SampleError, match=rf"image .*{words} cannot be read: "):
            data.load(sample_id, "native")


def test_what_ordinary_folders_hold_besides_is_no_sample(folder: Path) -> None:
    """More masks than images, views of masks in colour, and what systems and archives leave behind."""
    for name in ("alone", "a_colour"):
        shutil.copy(folder / "masks" / "a.png", folder / "masks" / f"{name}.png")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        (folder / "images" / name).write_bytes(b"x")
    for name in ("@eaDir", "__MACOSX", "cat.png", ".ipynb_checkpoints"):
        (folder / "images" / name).mkdir()
    assert sorted(open_dataset("folder", folder).ids) == ["a", "b", "c"]


def test_images_in_folders_of_their_own_are_said(folder: Path) -> None:
    (folder / "images").rename(folder / "cats")
    (folder / "images").mkdir()
    (folder / "cats").rename(folder / "images" / "cats")
    with pytest.raises(SettingsError, match=r"images holds only folders, such as cats; expected .* move them up"):
        open_dataset("folder", folder)


def test_a_mask_whose_ending_is_in_capitals_is_named(folder: Path) -> None:
    (folder / "masks" / "b.png").rename(folder / "masks" / "b.PNG")
    with pytest.raises(SampleError, match=r"b\.png cannot be read: .*; b\.PNG is there; its ending must be \.png"):
        open_dataset("folder", folder).load("b", "native")


def test_a_folder_cannot_be_downloaded(folder: Path) -> None:
    with pytest.raises(SettingsError, match="a folder data set cannot be downloaded; put images/, masks/ and classes"):
        open_dataset("folder", folder, download=True)


def test_unknown_data_sets_and_missing_roots() -> None:
    with pytest.raises(SettingsError, match="unknown data set 'voc2021'; did you mean 'voc2012'"):
        open_dataset("voc2021", "anywhere")
    with pytest.raises(SettingsError, match=r"data set sbd needs a root folder: set \[data\] root \(or --set data\.r"):
        open_dataset("sbd", None)


# Choosing samples


def dataset_of(ids: list[str]) -> Dataset:
    def load(sample_id: str, size: object) -> Sample:
        raise AssertionError("choosing reads no sample")

    return Dataset("toy", "val", ids, None, load, str.encode)


IDS = [f"2007_{i:06d}" for i in range(37)]


def test_all_ids_are_sorted() -> None:
    assert dataset_of(IDS[::-1]).choose(None, None, 0) == IDS


@pytest.mark.parametrize("seed", [0, 1, 12345])
@pytest.mark.parametrize("n", [1, 10, 37])
def test_a_subset_is_drawn_from_the_sorted_ids(seed: int, n: int) -> None:
    """PCG64 seeded with SHA-256 of `seed|sample id|purpose`; a subset belongs to no sample."""
    key = int.from_bytes(hashlib.sha256(f"{seed}||subset".encode()).digest(), "big")
    order = np.random.Generator(np.random.PCG64(key)).permutation(37)[:n]
    expected = sorted(IDS[i] for i in order)
    assert len(set(expected)) == n
    for listing in (IDS, IDS[::-1], IDS[20:] + IDS[:20]):
        assert dataset_of(listing).choose(n, None, seed) == expected


def test_seeds_differ_and_a_larger_subset_holds_the_smaller() -> None:
    data = dataset_of(IDS)
    assert len({tuple(data.choose(10, None, seed)) for seed in range(6)}) == 6
    assert set(data.choose(10, None, 3)) < set(data.choose(20, None, 3))


def test_named_ids_are_sorted_and_taken_once() -> None:
    data = dataset_of(IDS)
    assert data.choose(None, [IDS[9], IDS[2], IDS[9]], 0) == [IDS[2], IDS[9]]
    assert data.choose(1, [IDS[9], IDS[2]], 0) == [IDS[2], IDS[9]]


def test_an_unknown_id_suggests_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"toy val has no sample '2007_000003x'; the nearest are 2007_000003,"):
        dataset_of(IDS).choose(None, [IDS[0], "2007_000003x"], 0)
    with pytest.raises(SettingsError, match=r"toy val has no sample 'zzz'$"):
        dataset_of(IDS).choose(None, ["zzz"], 0)


def test_more_samples_than_there_are() -> None:
    with pytest.raises(SettingsError, match="n = 38 samples asked for; toy val has 37"):
        dataset_of(IDS).choose(38, None, 0)


def test_the_digest_follows_the_files(folder: Path) -> None:
    data = open_dataset("folder", folder)
    first = data.digest(["a", "b"])
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert open_dataset("folder", folder).digest(["a", "b"]) == first
    digests = {first, data.digest(["a"]), data.digest(["a", "c"])}
    assert len(digests) == 3
    image = folder / "images" / "a.png"
    content = image.read_bytes()
    image.write_bytes(content + b"\0")
    digests.add(data.digest(["a", "b"]))
    image.write_bytes(content)
    assert data.digest(["a", "b"]) == first
    (folder / "masks" / "b.png").write_bytes((folder / "masks" / "c.png").read_bytes())
    digests.add(data.digest(["a", "b"]))
    (folder / "masks" / "b.png").unlink()
    digests.add(data.digest(["a", "b"]))
    assert len(digests) == 6


# Pascal VOC and SBD: absent, and downloaded


@pytest.mark.parametrize("name", ["voc2012", "sbd"])
def test_an_absent_data_set_gives_the_command_that_downloads_it(name: str, tmp_path: Path) -> None:
    root = tmp_path / "nothing"
    with pytest.raises(SettingsError) as caught:
        open_dataset(name, root)
    assert f"{name} val is not in {root}" in str(caught.value)
    assert str(caught.value).endswith(f"Download it with: segfaith download {name} {root}")


def test_the_command_works_for_a_root_with_a_space(tmp_path: Path) -> None:
    root = tmp_path / "my photographs"
    with pytest.raises(SettingsError) as caught:
        open_dataset("voc2012", root)
    assert str(caught.value).endswith(f"Download it with: segfaith download voc2012 '{root}'")


def test_the_command_names_a_split_that_is_downloaded_apart(tmp_path: Path) -> None:
    """SBD's `train_noval` is no part of the archive; torchvision fetches it only when that split is asked for."""
    write_sbd(tmp_path)
    with pytest.raises(
        SettingsError, match=r"sbd train_noval is not in .* segfaith download sbd .*--split train_noval"
    ):
        open_dataset("sbd", tmp_path, "train_noval")


@pytest.mark.parametrize(("name", "split"), [("voc2012", "vall"), ("sbd", "trainval")])
def test_a_split_that_does_not_exist_is_not_an_absent_data_set(name: str, split: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=rf"{split}.*[Vv]alid values are .*train.*val") as caught:
        open_dataset(name, tmp_path, split)
    assert "segfaith download" not in str(caught.value)


def write_voc(base: Path) -> None:
    """VOC's layout with two photographs in `val` and one in `train`."""
    voc = base / "VOCdevkit" / "VOC2012"
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / part).mkdir(parents=True)
    splits = {"val": ["2007_000033", "2007_000042"], "train": ["2007_000032"]}
    for split, ids in splits.items():
        (voc / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{one}\n" for one in ids))
        for one in ids:
            PillowImage.new("RGB", (24, 16), (0, 128, 255)).save(voc / "JPEGImages" / f"{one}.jpg")
            mask = palette_picture(np.tile(np.array([0, 15, 255], np.uint8), (16, 8)), np.zeros((256, 3), np.uint8))
            mask.save(voc / "SegmentationClass" / f"{one}.png")


def write_sbd(base: Path) -> None:
    """SBD's archive layout with one photograph in `val` and one in `train`."""
    for part in ("img", "cls", "inst"):
        (base / part).mkdir(parents=True)
    for split, one in (("val", "2008_000051"), ("train", "2008_000008")):
        (base / f"{split}.txt").write_text(f"{one}\n")
        PillowImage.new("RGB", (24, 16), (0, 128, 255)).save(base / "img" / f"{one}.jpg")
        mask = np.tile(np.array([0, 12, 3], np.uint8), (16, 8))
        savemat(base / "cls" / f"{one}.mat", {"GTcls": {"Segmentation": mask}})


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server with both archives, in the place of the data sets' own."""
    folder = tmp_path / "server"
    folder.mkdir()
    write_voc(tmp_path / "made")
    write_sbd(tmp_path / "made" / "benchmark_RELEASE" / "dataset")
    with tarfile.open(folder / "voc.tar", "w") as archive:
        archive.add(tmp_path / "made" / "VOCdevkit", "VOCdevkit")
    with tarfile.open(folder / "benchmark.tgz", "w:gz") as archive:
        archive.add(tmp_path / "made" / "benchmark_RELEASE", "benchmark_RELEASE")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve(folder) as server:
        entry = torchvision_voc.DATASET_YEAR_DICT["2012"]
        monkeypatch.setitem(entry, "url", f"{server.url}/voc.tar")
        monkeypatch.setitem(entry, "md5", md5(folder / "voc.tar"))
        monkeypatch.setattr(SBDataset, "url", f"{server.url}/benchmark.tgz")
        monkeypatch.setattr(SBDataset, "md5", md5(folder / "benchmark.tgz"))
        yield server


COUNTS = {"voc2012": (2, 1, "/voc.tar"), "sbd": (1, 1, "/benchmark.tgz")}


@pytest.mark.parametrize("name", COUNTS)
def test_the_command_downloads(name: str, official: FileServer, tmp_path: Path) -> None:
    root = tmp_path / "root"
    in_val, in_train, path = COUNTS[name]
    result = CliRunner().invoke(app, ["download", name, str(root)])
    assert result.exit_code == 0, result.exception
    assert f"{name} is in {root}: {in_val} samples in val" in result.output
    assert set(official.requests) == {path}
    asked = len(official.requests)  # torchvision asks once for redirects and once for the file
    data = open_dataset(name, root)
    assert len(data.ids) == in_val
    assert len(open_dataset(name, root, "train").ids) == in_train
    assert len(official.requests) == asked
    sample = data.load(data.choose(1, None, 0)[0], "native")
    assert sample.image.shape == (3, 16, 24)
    assert sample.labels[3, :3].tolist() == ([0, 15, 255] if name == "voc2012" else [0, 12, 3])


@pytest.mark.parametrize("name", COUNTS)
def test_opening_may_download(name: str, official: FileServer, tmp_path: Path) -> None:
    data = open_dataset(name, tmp_path / "root", "train", download=True)
    assert len(data.ids) == 1
    assert data.split == "train"
    assert list(data.classes or []) == VOC_CLASSES
    assert set(official.requests) == {COUNTS[name][2]}


@pytest.mark.parametrize("name", COUNTS)
def test_downloading_again_finds_the_data_set(name: str, official: FileServer, tmp_path: Path) -> None:
    requests = []
    for _ in range(2):
        assert len(open_dataset(name, tmp_path / "root", download=True).ids) == COUNTS[name][0]
        requests.append(len(official.requests))
    assert requests[0] == requests[1]


@pytest.mark.parametrize("name", COUNTS)
def test_a_download_with_another_checksum_is_refused(
    name: str, official: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(torchvision_voc.DATASET_YEAR_DICT["2012"], "md5", "0" * 32)
    monkeypatch.setattr(SBDataset, "md5", "0" * 32)
    with pytest.raises(SettingsError, match=rf"{name} val .*\(File not found or corrupted"):
        open_dataset(name, tmp_path / "root", download=True)
    assert not (tmp_path / "root" / "VOCdevkit").exists()
    assert not (tmp_path / "root" / "img").exists()


@pytest.mark.parametrize("name", COUNTS)
def test_an_archive_that_would_write_outside_is_refused_before_it_is_extracted(
    name: str, official: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "server" / COUNTS[name][2].removeprefix("/")
    (tmp_path / "evil.txt").write_text("evil")
    with tarfile.open(archive, "w:gz" if archive.suffix == ".tgz" else "w") as members:
        members.add(tmp_path / "evil.txt", "fine.txt")
        members.add(tmp_path / "evil.txt", "../written.txt")
    monkeypatch.setitem(torchvision_voc.DATASET_YEAR_DICT["2012"], "md5", md5(archive))
    monkeypatch.setattr(SBDataset, "md5", md5(archive))
    with pytest.raises(
        SettingsError, match=r"the member '\.\./written\.txt': its path leads out .* nothing was extracted"
    ):
        open_dataset(name, tmp_path / "root", download=True)
    assert not (tmp_path / "written.txt").exists()
    assert [path.suffix for path in (tmp_path / "root").iterdir()] == [".tar" if name == "voc2012" else ".tgz"]


@pytest.mark.parametrize("name", COUNTS)
def test_an_unreachable_server(
    name: str, official: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = unreachable_url()
    monkeypatch.setitem(torchvision_voc.DATASET_YEAR_DICT["2012"], "url", f"{url}/voc.tar")
    monkeypatch.setattr(SBDataset, "url", f"{url}/benchmark.tgz")
    result = CliRunner().invoke(app, ["download", name, str(tmp_path / "root")])
    assert isinstance(result.exception, SettingsError)
    assert "Connection refused" in str(result.exception)


def test_the_command_refuses_what_it_cannot_download(tmp_path: Path) -> None:
    runner = CliRunner()
    result = runner.invoke(app, ["download", "voc", str(tmp_path)])
    assert isinstance(result.exception, SettingsError)
    assert "unknown data set 'voc'; did you mean 'voc2012'" in str(result.exception)
    result = runner.invoke(app, ["download", "folder", str(tmp_path)])
    assert isinstance(result.exception, SettingsError)
    assert "a folder data set cannot be downloaded" in str(result.exception)


@pytest.mark.parametrize("damage", ["empty", "words", "half", "flipped", "other"])
def test_a_damaged_label_file_of_sbd(damage: str, tmp_path: Path) -> None:
    write_sbd(tmp_path)
    path = tmp_path / "cls" / "2008_000051.mat"
    noise = np.random.default_rng(0).integers(0, 21, (16, 24), dtype=np.uint8)
    savemat(path, {"GTcls": {"Segmentation": noise}}, do_compression=True)
    whole = path.read_bytes()
    middle = len(whole) // 2
    content = {
        "empty": b"",
        "words": b"these are words",
        "half": whole[:middle],
        "flipped": whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 40]) + whole[middle + 40 :],
    }
    if damage == "other":
        savemat(path, {"GTinst": {"Segmentation": noise}})
    else:
        path.write_bytes(content[damage])
    with pytest.raises(SampleError, match=r"SBD label file .*2008_000051\.mat cannot be read: \w+: ."):
        open_dataset("sbd", tmp_path).load("2008_000051", "native")


def test_a_missing_label_file_of_sbd(tmp_path: Path) -> None:
    write_sbd(tmp_path)
    (tmp_path / "cls" / "2008_000051.mat").unlink()
    with pytest.raises(SampleError, match=r"SBD label file .*2008_000051\.mat cannot be read: .*No such file"):
        open_dataset("sbd", tmp_path).load("2008_000051", "native")


# Pascal VOC and SBD: real ones


@pytest.mark.realdata
def test_voc_on_real_photographs(shared: Path) -> None:
    voc = shared / "voc" / "VOCdevkit" / "VOC2012"
    data = open_dataset("voc2012", shared / "voc")
    listed = (voc / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
    assert len(data.ids) == 120
    assert sorted(data.ids) == sorted(listed)
    assert len(open_dataset("voc2012", shared / "voc", "train").ids) == 20
    assert list(data.classes or []) == VOC_CLASSES
    for sample_id in listed[:3]:
        sample = data.load(sample_id, "native")
        mask = np.array(PillowImage.open(voc / "SegmentationClass" / f"{sample_id}.png"))
        picture = np.array(PillowImage.open(voc / "JPEGImages" / f"{sample_id}.jpg"))
        assert np.array_equal(sample.labels.numpy(), mask)
        assert np.array_equal(numpy_image(sample.image), picture.astype(np.float32) / 255)
        small = data.load(sample_id, 224)
        nearest = PillowImage.fromarray(mask).resize((224, 224), PillowImage.Resampling.NEAREST)
        assert small.image.shape == (3, 224, 224)
        assert np.array_equal(small.labels.numpy(), np.asarray(nearest))


@pytest.mark.realdata
def test_every_real_mask_is_in_range(shared: Path) -> None:
    data = open_dataset("voc2012", shared / "voc")
    seen: set[int] = set()
    for sample_id in data.ids:
        seen |= set(data.load(sample_id, 56).labels.unique().tolist())
    assert seen == {*range(21), 255}


@pytest.mark.realdata
@pytest.mark.parametrize(("folder_name", "total"), [("original", 2), ("repacked", 7)])
def test_sbd_on_real_photographs(folder_name: str, total: int, shared: Path) -> None:
    root = shared / "sbd" / folder_name
    read = 0
    for split in ("train", "val"):
        listed = (root / f"{split}.txt").read_text().split()
        if not listed:
            continue
        data = open_dataset("sbd", root, split)
        assert sorted(data.ids) == sorted(listed)
        for sample_id in listed:
            if not (root / "img" / f"{sample_id}.jpg").is_file():
                continue
            sample = data.load(sample_id, "native")
            expected = loadmat(root / "cls" / f"{sample_id}.mat")["GTcls"]["Segmentation"][0, 0]
            assert np.array_equal(sample.labels.numpy(), expected)
            assert sample.image.shape[1:] == expected.shape
            assert 0 < int(sample.labels.max()) <= 20
            read += 1
    assert read == total
