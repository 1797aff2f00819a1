"""Votes: the reference program's masks, and ties."""

from __future__ import annotations

import pytest
import torch

from labelers.ensemble.vote import elect, first_maximum

VOTES = ("majority", "soft", "log_soft")


@pytest.mark.parametrize("vote", VOTES)
def test_golden_mask(golden, vote):
    mask = elect(golden["logits"].transpose(1, 2), vote)
    assert mask.dtype == torch.uint8
    assert torch.equal(mask.view(32, 32), golden[f"{vote}_vote"])


def test_golden_masks_hold_ties(golden):
    """331 pixels of the golden image are ties: the exact match above covers them."""
    first = golden["logits"].argmax(2)
    counts = torch.nn.functional.one_hot(first, 5).sum(0).sort(1, descending=True).values
    assert int((counts[:, 0] == counts[:, 1]).sum()) == 331


@pytest.mark.parametrize(
    ("choices", "winner"),
    [([3, 1], 1), ([1, 3], 1), ([4, 2, 2, 4, 0], 2), ([4, 4, 0], 4), ([2, 1, 0], 0)],
)
def test_majority_tie_goes_to_the_smallest_id(choices, winner):
    logits = torch.zeros(len(choices), 5, 4)
    for member, choice in enumerate(choices):
        logits[member, choice] = 1.0 + choice  # confidence must not matter
    assert elect(logits, "majority").tolist() == [winner] * 4


@pytest.mark.parametrize("vote", VOTES)
def test_nan_gets_a_valid_class(vote):
    """An index beyond the classes would break a GPU's context; the uncertainty is NaN."""
    assert elect(torch.full((3, 5, 4), torch.nan), vote).lt(5).all()


def test_votes_differ_as_expected():
    """Two lukewarm members for class 1, one sure of class 0; then a veto against class 0."""
    p = torch.tensor([[0.4, 0.6], [0.4, 0.6], [0.95, 0.05], [1e-6, 1.0]])
    lukewarm = p[:3].log()[:, :, None]
    assert [elect(lukewarm, vote).item() for vote in VOTES] == [1, 0, 0]
    veto = p[[2, 2, 3]].log()[:, :, None]
    assert elect(veto, "log_soft").item() == 1  # one veto outweighs two sure members
    assert elect(veto, "soft").item() == 0


def test_members_that_cannot_choose_vote_for_the_smallest_id():
    tied = torch.tensor([0.0, 2.0, 2.0]).view(1, 3, 1)
    assert [elect(tied, vote).item() for vote in VOTES] == [1, 1, 1]


def test_first_maximum_is_argmax():
    x = torch.randint(-3, 3, (4, 7, 50), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(first_maximum(x), x.argmax(1))
    assert torch.equal(first_maximum(x[0]), x[0].argmax(0))


def test_the_largest_number_of_classes():
    """Class 254 is the last id; 255 would mean ignore."""
    logits = torch.zeros(2, 255, 3)
    logits[:, 254] = 1.0
    assert all(elect(logits, vote).tolist() == [254] * 3 for vote in VOTES)
