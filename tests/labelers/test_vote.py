"""Votes: the reference program's masks, and ties."""

from __future__ import annotations

import pytest
import torch

from labelers.vote import Tally


@pytest.mark.parametrize("vote", ["majority", "soft", "log_soft"])
def test_golden_mask(golden, golden_features, golden_ensemble, vote):
    tally = Tally(vote)
    for logits in golden_ensemble.logits(golden_features, (32, 32)):
        tally.add(logits)
    assert tally.mask().dtype == torch.uint8
    assert torch.equal(tally.mask()[0], golden[f"{vote}_vote"])


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
    tally = Tally("majority")
    for choice in choices:
        logits = torch.zeros(1, 5, 2, 2)
        logits[:, choice] = 1.0 + choice  # confidence must not matter
        tally.add(logits)
    assert tally.mask().unique().tolist() == [winner]


def test_votes_differ_as_they_should():
    """Two lukewarm members for class 1, one sure of class 0, one that excludes class 0."""
    p = torch.tensor([[0.4, 0.6], [0.4, 0.6], [0.95, 0.05], [1e-6, 1.0]])
    masks = {}
    for vote in ("majority", "soft", "log_soft"):
        tally = Tally(vote)
        for row in p[:3]:
            tally.add(row.log().view(1, 2, 1, 1))
        masks[vote] = tally.mask().item()
    assert masks == {"majority": 1, "soft": 0, "log_soft": 0}
    log_soft = Tally("log_soft")
    for row in p[[2, 2, 3]]:
        log_soft.add(row.log().view(1, 2, 1, 1))
    assert log_soft.mask().item() == 1  # one veto outweighs two sure members


def test_soft_tie_goes_to_the_smallest_id():
    tally = Tally("soft")
    tally.add(torch.tensor([0.0, 2.0, 2.0]).view(1, 3, 1, 1))
    assert tally.mask().item() == 1
