"""IoU under both policies, against the reference and by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from train_seg.evaluation.metrics import Confusion, scores

GOLDEN = Path(__file__).parents[2] / "golden" / "pixel_classifier"


def score(truth: list[int], guess: list[int], classes: int = 3):
    confusion = Confusion(classes)
    confusion.update(torch.tensor(guess), torch.tensor(truth))
    return scores(confusion, [f"c{i}" for i in range(classes)], images=1)


def test_reference_policy_equals_the_papers_code():
    golden = load_file(GOLDEN / "expected.safetensors")
    classes = json.loads((GOLDEN / "about.json").read_text())["iou_classes"]
    confusion = Confusion(classes)
    for prediction, mask in zip(golden["iou.pred"], golden["iou.gt"], strict=True):
        confusion.update(prediction, mask)
    result = scores(confusion, [str(i) for i in range(classes)])
    # The reference adds 1e-10 to its denominators.
    assert result.miou_reference == pytest.approx(golden["iou.reference_miou"].item(), abs=1e-9)
    assert result.miou > result.miou_reference


def test_policies_by_hand():
    # class 0: 2 hits, 1 predicted as 1; class 2 in neither; one ignored pixel, predicted as 0
    result = score([0, 0, 0, 1, 255], [0, 0, 1, 1, 0])
    assert result.iou == [pytest.approx(2 / 3), pytest.approx(1 / 2), None]
    assert result.miou == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert result.miou_reference == pytest.approx((2 / 4 + 1 / 2 + 0) / 3)
    assert result.pixel_accuracy == pytest.approx(3 / 4)
    assert result.class_pixels == [3, 1, 0]


def test_a_class_that_is_only_predicted_is_left_out_of_miou():
    result = score([0, 0], [0, 2])
    assert result.iou == [0.5, None, 0.0]
    assert result.miou == 0.5


def test_dict_contains_the_policies():
    found = json.loads(json.dumps(score([0, 1, 2], [0, 1, 2]).to_dict()))
    assert found["miou"] == found["miou_reference"] == 1
    assert "present in the ground truth" in found["miou_policy"]
    assert "absent from truth and prediction counts 0" in found["miou_reference_policy"]
    assert found["iou"] == {"c0": 1.0, "c1": 1.0, "c2": 1.0}


def test_errors():
    with pytest.raises(ValueError, match="found class id 3, expected ids below 3"):
        score([3], [0])
    with pytest.raises(ValueError, match="found class id 7, expected ids below 3"):
        score([0], [7])
    with pytest.raises(ValueError, match="every pixel of the masks is ignored"):
        score([255], [0])
    with pytest.raises(ValueError, match=r"shape \(1, 2\), masks \(1, 3\)"):
        Confusion(2).update(torch.zeros(1, 2), torch.zeros(1, 3))
