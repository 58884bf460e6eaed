"""Which files a user means, and where annotated pictures go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeformer.inference.picture_files import Camera, PictureFile, Video, annotated_paths, find_sources
from tests.raising import raises


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("something")


def found(*given: Path) -> list[str]:
    return [str(one.name) for one in find_sources([str(path) for path in given]).pictures]


def test_files_and_folders_in_the_given_order(tmp_path: Path) -> None:
    put(tmp_path, "b/2.png", "b/1.jpg", "b/deep/3.webp", "b/.hidden.png", "b/notes.txt", "a.strange")
    assert found(tmp_path / "b", tmp_path / "a.strange") == ["1.jpg", "2.png", "deep/3.webp", "a.strange"]
    assert found(tmp_path / "a.strange", tmp_path / "b" / "2.png") == ["a.strange", "2.png"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cat/1.png", "dog/2.png"], ["cat/1.png", "dog/2.png"]),
        (["images/1.png", "labels/1.png"], ["images/1.png"]),
        (["train/1.png", "val/2.png"], ["train/1.png", "val/2.png"]),
        (["0.png", "images/1.png"], ["0.png", "images/1.png"]),
    ],
)
def test_folders_are_walked_as_data_sets_are(names: list[str], expected: list[str], tmp_path: Path) -> None:
    put(tmp_path, *names)
    assert found(tmp_path) == expected


def test_what_is_left_out_of_a_folder_is_told(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "2.heic")
    (tmp_path / "3.png").touch()
    (line,) = find_sources([str(tmp_path)]).left_out
    assert "2 of 3 files left out" in line
    assert "2.heic" in line
    assert "3.png (empty)" in line
    (tmp_path / "1.png").unlink()
    with raises("EF403", tmp_path, "2 of 2"):
        find_sources([str(tmp_path)])


def test_what_is_not_there(tmp_path: Path) -> None:
    for name in ("picture.png", "film.mp4"):
        with raises("EF102", tmp_path / name):
            find_sources([str(tmp_path / name)])
    with raises("EF403", tmp_path):
        find_sources([str(tmp_path)])


def test_videos_and_cameras_stand_alone(tmp_path: Path) -> None:
    put(tmp_path, "film.MP4", "1.png")
    film = str(tmp_path / "film.MP4")
    assert find_sources([film]).stream == Video(tmp_path / "film.MP4")
    assert find_sources(["camera:12"]).stream == Camera(12)
    assert find_sources(["/dev/video3"]).stream == Camera(3)
    for given in ([film, str(tmp_path / "1.png")], ["camera:0", "camera:1"]):
        with raises("EF104", "2 inputs"):
            find_sources(given)


def files(*paths: Path) -> list[PictureFile]:
    return [PictureFile(path, Path(path.name)) for path in paths]


def test_annotated_pictures_keep_their_names(tmp_path: Path) -> None:
    given = [*files(Path("a.JPG"), Path("b.png"), Path("c.gif")), PictureFile(Path("in/d/e.png"), Path("d/e.png"))]
    names = [path.relative_to(tmp_path).as_posix() for path in annotated_paths(given, tmp_path)]
    assert names == ["a.JPG", "b.png", "c.gif.png", "d/e.png"]


def test_no_picture_that_is_read_is_replaced(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "other/b.png")
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    for output in (tmp_path, link, tmp_path / "other" / ".."):
        with raises("EF868", "a.png", "another folder"):
            annotated_paths(files(tmp_path / "a.png"), output)
    # Not itself, but another one of those that are read.
    (tmp_path / "out").mkdir()
    os.symlink(tmp_path / "other" / "b.png", tmp_path / "out" / "a.png")
    with raises("EF868", tmp_path / "other" / "b.png"):
        annotated_paths(files(tmp_path / "a.png", tmp_path / "other" / "b.png"), tmp_path / "out")


def test_two_pictures_do_not_become_one(tmp_path: Path) -> None:
    with raises("EF868", "x/a.png", "y/a.png"):
        annotated_paths(files(Path("x/a.png"), Path("y/a.png")), tmp_path)
