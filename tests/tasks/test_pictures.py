"""Folders of images, and what Pillow makes of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from undistill.errors import InputError
from undistill.tasks import load_task
from undistill.tasks.pictures import decode

RANDOM = np.random.default_rng(0)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def colours(count: int) -> np.ndarray:
    return RANDOM.integers(256, size=(count, 6, 7, 3), dtype=np.uint8)


def fill(folder: Path, per_class: int, names: tuple[str, ...] = ("cat", "dog")) -> dict[str, np.ndarray]:
    written = {name: colours(per_class) for name in names}
    for name, pictures in written.items():
        for place, pixels in enumerate(pictures):
            save(folder / name / f"{place:03}.png", pixels)
    return written


def test_folder_of_classes(tmp_path: Path) -> None:
    written = fill(tmp_path, 20)
    (tmp_path / "cat" / ".hidden.png").write_bytes(b"")
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    task = load_task(str(tmp_path))
    assert (task.class_names, task.input_shape) == (("cat", "dog"), (3, 6, 7))
    assert [len(split) for split in task.splits.values()] == [29, 3, 8]
    for split in task.splits.values():
        for image, label in zip(split.images, split.labels.tolist(), strict=True):
            own = written[task.class_names[label]]
            assert sum(np.array_equal(image.permute(1, 2, 0), pixels) for pixels in own) == 1


def test_folder_of_parts(tmp_path: Path) -> None:
    train = fill(tmp_path / "train", 5)
    test = fill(tmp_path / "test" / ".", 3)
    validation = fill(tmp_path / "val", 2)
    task = load_task(str(tmp_path))
    for split, written in zip(task.splits.values(), (train, validation, test), strict=True):
        assert np.array_equal(split.images.permute(0, 2, 3, 1), np.concatenate([written["cat"], written["dog"]]))
        assert split.labels.tolist() == [0] * len(written["cat"]) + [1] * len(written["dog"])


def test_images_deeper_in_a_class_folder(tmp_path: Path) -> None:
    fill(tmp_path / "train", 4)
    for place in range(4):
        save(tmp_path / "train" / "eel" / "images" / f"{place}.PNG", colours(1)[0])
    fill(tmp_path / "test", 1)
    assert load_task(str(tmp_path), validation=0.3).class_names == ("cat", "dog", "eel")


def test_a_class_that_is_not_in_train(tmp_path: Path) -> None:
    fill(tmp_path / "train", 20)
    fill(tmp_path / "test", 2, ("cat", "cow"))
    with pytest.raises(InputError, match="at least 2 training images, but 'cow' has 0"):
        load_task(str(tmp_path))


def test_a_class_with_one_training_image(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    fill(tmp_path, 1, ("emu",))
    with pytest.raises(InputError, match=r"'emu' has [01]"):
        load_task(str(tmp_path))


def test_broken_and_odd_images_are_named_and_counted(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    for place in range(7):
        (tmp_path / "cat" / f"broken{place}.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    save(tmp_path / "dog" / "large.png", np.zeros((9, 8, 3), dtype=np.uint8))
    with pytest.raises(InputError) as caught:
        load_task(str(tmp_path))
    message = str(caught.value)
    assert "these cannot be read: cat/broken" in message
    assert message.count("cat/broken") >= 5
    assert "... (7 in all)" in message
    assert "is 7x6 and these are not: dog/large.png (8x9); resize them" in message


def test_truncated_image(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    path = tmp_path / "cat" / "000.png"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"cannot be read: cat/000\.png \("):
        load_task(str(tmp_path))


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds neither parquet files nor a subfolder of images for each class"):
        load_task(str(tmp_path))


def test_only_the_chosen_classes_are_read(tmp_path: Path) -> None:
    fill(tmp_path, 20, ("ant", "bee", "cat"))
    (tmp_path / "cat" / "000.png").write_bytes(b"broken")
    assert load_task(str(tmp_path), classes=2).class_names == ("ant", "bee")


GRAY = RANDOM.integers(256, size=(6, 7), dtype=np.uint8)
COLOUR = colours(1)[0]


def encoded(folder: Path, *images: Image.Image) -> list[tuple[str, Path | bytes | None]]:
    pictures: list[tuple[str, Path | bytes | None]] = []
    for place, image in enumerate(images):
        path = folder / f"{place}.{'tiff' if image.mode == 'CMYK' else 'png'}"
        image.save(path)
        pictures.append((path.name, path.read_bytes() if place % 2 else path))
    return pictures


def test_gray_images_have_one_channel(tmp_path: Path) -> None:
    gray = Image.fromarray(GRAY)
    images = [gray, gray.convert("LA"), gray.convert("1")]
    decoded = decode("'x'", encoded(tmp_path, *images), 3)
    assert decoded.shape == (3, 6, 7, 1)
    assert np.array_equal(decoded[0, ..., 0], GRAY)
    assert np.array_equal(decoded[1, ..., 0], GRAY)
    assert np.array_equal(decoded[2, ..., 0], np.where(np.asarray(images[2]), 255, 0))


@pytest.mark.parametrize("gray_first", [True, False])
def test_one_colour_image_makes_all_colour(tmp_path: Path, gray_first: bool) -> None:
    images = [Image.fromarray(GRAY), Image.fromarray(COLOUR)]
    decoded = decode("'x'", encoded(tmp_path, *(images if gray_first else images[::-1])), 2)
    gray, colour = decoded if gray_first else decoded[::-1]
    assert np.array_equal(colour, COLOUR)
    assert np.array_equal(gray, np.stack([GRAY] * 3, axis=-1))


def test_palette_transparency_and_print_colours(tmp_path: Path) -> None:
    few = (COLOUR // 128) * 255  # eight colours, so that a palette holds them all
    transparent = np.concatenate([COLOUR, GRAY[..., None]], axis=2)
    images = [Image.fromarray(few).quantize(8), Image.fromarray(transparent), Image.fromarray(few).convert("CMYK")]
    decoded = decode("'x'", encoded(tmp_path, *images), 3)
    assert np.array_equal(decoded[0], few)
    assert np.array_equal(decoded[1], COLOUR)
    assert np.array_equal(decoded[2], few)


def test_deep_images_are_refused(tmp_path: Path) -> None:
    deep = Image.fromarray(GRAY.astype(np.uint16) * 257)
    with pytest.raises(InputError, match=r"these cannot be read: 0\.png \(mode I;16 has more than 8 bits a channel\)"):
        decode("'x'", encoded(tmp_path, deep), 1)


def test_missing_images_are_refused() -> None:
    with pytest.raises(InputError, match=r"the images of 'x' cannot be used: .* row 3 \(there is no image\)"):
        decode("'x'", [("row 3", None)], 1)
