"""The network gives boxes in pixels, at any size, and its training knows which cell is for which object."""

from __future__ import annotations

import pytest
import torch

from edgeformer.models.attention import BiLevelRoutingAttention
from examples.yolo_with_bra.detector import STRIDES, Detector, cell_centres
from examples.yolo_with_bra.scenes import CLASSES, make_scene
from examples.yolo_with_bra.training import FIRST_UNSEEN, _giou, _loss, _owners, pixels_of, train


@pytest.mark.parametrize("size", [64, 72])
def test_boxes_and_scores_of_every_cell(size: int) -> None:
    torch.manual_seed(0)
    model = Detector(3).eval()
    assert sum(isinstance(module, BiLevelRoutingAttention) for module in model.modules()) == 2
    with torch.no_grad():
        boxes, scores = model(torch.rand(2, 3, size, size))
    cells = sum((-(-size // stride)) ** 2 for stride in STRIDES)
    assert (boxes.shape, scores.shape) == ((2, cells, 4), (2, cells, 3))
    centres = torch.cat([cell_centres(-(-size // stride), -(-size // stride), stride) for stride in STRIDES])
    assert (boxes[..., :2] < centres).all()
    assert (boxes[..., 2:] > centres).all()
    assert 0 < scores.min() < scores.max() < 1


def test_centres_in_reading_order() -> None:
    assert cell_centres(2, 3, 8).tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]


def test_cells_near_the_middle_of_an_object_of_their_size_are_for_it() -> None:
    small, large = [8.0, 8.0, 24.0, 24.0], [100.0, 0.0, 220.0, 120.0]
    owners = torch.split(_owners(torch.tensor([small, large]), 224), [28 * 28, 14 * 14, 7 * 7])
    assert set(owners[0].tolist()) == {-1, 0}
    assert set(owners[1].tolist()) == {-1}
    assert set(owners[2].tolist()) == {-1, 1}
    centres = cell_centres(28, 28, 8)[owners[0] == 0]
    assert ((centres - 16).abs() < 12).all()


def test_giou() -> None:
    first = torch.tensor([[0.0, 0.0, 2.0, 2.0]] * 3)
    second = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [4.0, 0.0, 6.0, 2.0]])
    torch.testing.assert_close(_giou(first, second), torch.tensor([1.0, 1 / 3, -1 / 3]))


def test_scenes_hold_what_they_say() -> None:
    one, same, other = make_scene(96, 5), make_scene(96, 5), make_scene(96, 6)
    assert one.picture.tobytes() == same.picture.tobytes() != other.picture.tobytes()
    for seed in range(20):
        scene = make_scene(96, FIRST_UNSEEN + seed)
        assert len(scene.boxes) == len(scene.labels) >= 1
        assert set(scene.labels.tolist()) <= set(range(len(CLASSES)))
        assert (scene.boxes >= 0).all()
        assert (scene.boxes <= 96).all()
        for index, box in enumerate(scene.boxes):
            for rest in scene.boxes[index + 1 :]:
                assert (box[2:] <= rest[:2]).any() or (rest[2:] <= box[:2]).any()


def test_training_lowers_the_loss_and_leaves_evaluation_mode() -> None:
    torch.manual_seed(0)
    model, lines = Detector(3), list[str]()
    unseen = [make_scene(64, FIRST_UNSEEN + index) for index in range(16)]
    with torch.no_grad():
        before = _loss(model, unseen, 64)
    train(model, 64, 20, lines.append)
    assert not model.training
    with torch.no_grad():
        assert _loss(model.train(), unseen, 64) < 0.95 * before
    (line,) = lines
    assert line.startswith("step 20 of 20: loss ")


def test_pixels_are_scaled_to_one() -> None:
    scene = make_scene(64, 0)
    pixels = pixels_of([scene, scene])
    assert pixels.shape == (2, 3, 64, 64)
    assert pixels[1, :, 5, 7].mul(255).tolist() == pytest.approx(scene.picture.getpixel((7, 5)))
