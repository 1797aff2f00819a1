"""Whether a training may resume, and what its folder gives to others."""

from pathlib import Path

import pytest

from generators.training.folder import TrainingRecord, check_resumable

IMAGES = {"a.jpg": "1", "b.jpg": "2", "c.jpg": "3"}


def record(images: dict[str, str], **settings: object) -> TrainingRecord:
    given = {"steps": 6, "lr": 0.1, "preview_every": 5} | settings
    provenance = {"init": None, "images": len(images)}
    return TrainingRecord(config=given, provenance=provenance, images=images)


def refusal(theirs: TrainingRecord, ours: TrainingRecord) -> str:
    with pytest.raises(ValueError, match=r"^out holds a training") as caught:
        check_resumable(theirs, ours, Path("out"), ("preview_every",))
    return str(caught.value)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"a.jpg": "1", "b.jpg": "2"}, "1 missing or damaged: c.jpg"),
        ({**IMAGES, "d.jpg": "4"}, "1 new: d.jpg"),
        ({**IMAGES, "b.jpg": "9"}, "1 changed: b.jpg"),
        ({"a.jpg": "1", "x.jpg": "7", "y.jpg": "8"}, "2 missing or damaged: b.jpg, c.jpg; 2 new"),
        ({f"{i}.jpg": str(i) for i in range(5)}, "5 new: 0.jpg, 1.jpg, 2.jpg, and 2 more"),
        ({"a.jpg": "2", "b.jpg": "1", "c.jpg": "3"}, "2 changed: a.jpg, b.jpg"),
        ({"b.jpg": "2", "a.jpg": "1", "c.jpg": "3"}, "the same, in a different order"),
    ],
)
def test_other_images_are_named_with_the_way_out(now: dict[str, str], words: str) -> None:
    message = refusal(record(IMAGES), record(now))
    assert words in message
    assert "--init out and another --out" in message


def test_renamed_images_are_the_same() -> None:
    renamed = {f"new_{name}": digest for name, digest in IMAGES.items()}
    check_resumable(record(IMAGES), record(renamed), Path("out"), ())


def test_a_training_that_knows_only_the_number_of_its_images() -> None:
    old = record(IMAGES).model_copy(update={"images": {}})
    check_resumable(old, record(IMAGES), Path("out"), ())
    message = refusal(old, record({"a.jpg": "1"}))
    assert "images 3, not 1" in message
    assert "--init out and another --out" in message


def test_more_steps_where_the_learning_rate_follows_them() -> None:
    message = refusal(record(IMAGES), record(IMAGES, steps=8))
    assert "6 steps, not 8" in message
    assert "--init out and another --out" in message
    assert "--init" not in refusal(record(IMAGES), record(IMAGES, lr=0.2))
    check_resumable(
        record(IMAGES), record(IMAGES, preview_every=1), Path("out"), ("preview_every",)
    )
