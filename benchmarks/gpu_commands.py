"""Every command that computes, as small as it can be, in an order in which they can run.

They expect a folder with `annotated` (64x64) and `photos`, and leave their outputs beside them. The
tests run them on a pretended accelerator, `benchmarks.on_gpu` on a real one.
"""

from __future__ import annotations

import shlex

LINES = """
train-generator --images photos --out generator --set image_size=32 --set channels=[16,32]
    --steps 2 --batch-size 2 --flips --quarter-turns --set precision=bfloat16
train-generator --kind stylegan2 --images photos --out gan --set image_size=16 --steps 2
    --batch-size 4 --set channel_base=256 --set channel_max=32 --set latent_dim=16
    --set mapping_layers=2 --set r1_every=2 --set path_every=2
train-generator --kind factorized --images photos --out regions --set image_size=32
    --set channels=[16,32] --steps 2 --batch-size 2
train-generator --kind mae --images photos --out mae --set image_size=64 --set width=16
    --set depth=2 --set heads=2 --set decoder_width=8 --set decoder_heads=2 --steps 2
    --batch-size 2 --set precision=bfloat16
train-generator --distill generator --images photos --out fast --steps 4 --batch-size 2
    --set image_size=32
train-labeler --encoder mae --encoder pixels --labeled annotated --out of-mae --fast
    --set labeler.members=2 --set labeler.training.steps=5
generate --generator package:factory.demo/generator --labeler of-mae --n 2 --out paired
    --executor local --set generator.steps=2
sample --generator regions --n 2 --out sampled-regions --set generator.steps=2
predict --generator regions --images photos --out segmented-regions
evaluate --generator regions --labeled annotated
train-labeler --kind clusters --generator regions --labeled annotated --out clusters
evaluate --labeler clusters --labeled annotated
choose --images photos --generator generator --n 2 --out chosen
sample --recipe demo --n 3 --out sampled --set generator.steps=2 --set generator.batch_size=2
train-labeler --recipe demo --labeled annotated --out labeler --fast --set labeler.members=2
    --set labeler.training.steps=20
train-labeler --recipe demo --labeled annotated --out network --kind network
    --set labeler.network.steps=2 --set labeler.network.members=1
train-labeler --recipe demo --labeled annotated --out both --kind both --fast
    --set labeler.members=2 --set labeler.training.steps=5 --set labeler.network.steps=2
    --set labeler.network.members=1
train-labeler --generator regions --labeled annotated --out named --kind regions
train-labeler --recipe demo --labeled annotated --out splits --folds 2 --test-images 1 --fast
    --set labeler.members=2 --set labeler.training.steps=5
generate --n 5 --out data --executor local --set generator.steps=2 --set generator.batch_size=2
    --set generator.precision=bfloat16 --set labeler.precision=bfloat16
    --set dataset.uncertainty_maps=true
generate --recipe demo-stylegan2 --n 3 --out gan-data --executor local
    --set generator.batch_size=2
generate --n 3 --out nothing --dry-run --executor local --set generator.steps=2
label --images photos --labeler labeler --out labelled --executor local
train-deeplab --data data --then annotated --val annotated --out model --encoder resnet18
    --steps 2 --set batch_size=2 --set then.max_steps=2 --set ema=0.9 --set dice=1
    --set precision=bfloat16
evaluate --model model --labeled annotated
evaluate --labeler labeler --labeled annotated
predict --model model --images photos --out segmented --tile 32
report data --real photos
report model --labeled annotated
report labeler --labeled annotated
compare --labeled annotated --out verdict --budget none --contender unet
    --contender blind-place --contender blind-shuffled --set folds=2 --set seeds=1
    --set label_steps=2 --set batch_size=2 --set curve=false
analyse labels --generator generator --labeled annotated --out analysis --splits 1
    --set labeler.members=2 --set labeler.training.steps=2
analyse corruptions --generator generator --labeled annotated --out analysis --splits 1
    --set test_images=1 --set labeler.members=2 --set labeler.training.steps=2
analyse noise --generator generator --labeled annotated --out analysis --splits 1
    --set test_images=1 --set labeler.members=2 --set labeler.training.steps=2 --set draws=1
analyse saturation --generator generator --labeled annotated --out saturation --splits 1
    --set test_images=1 --set labeler.members=2 --set labeler.training.steps=2 --set sizes=[2,3]
    --set segmenter.architecture=UNetGN --set segmenter.width=8 --set segmenter.max_steps=1
    --set segmenter.batch_size=2 --set generator.steps=2
analyse clusters --generator generator --labeled annotated --out analysis --splits 1
    --set blocks=[0,1] --set timesteps=[0,500] --set images=1
choose-features --generator generator --labeled annotated --out analysis --splits 1
    --set blocks=[0,1] --set timesteps=[0,500] --set labeler.training.steps=2 --set candidates=1
    --set most=3 --set final.training.steps=2 --set final.members=2
rounds --labeled annotated --images photos --generator generator --out rounds --rounds 1
    --set folds=2 --set seeds=1 --set label_steps=2 --set pretrain_steps=2 --set finish_steps=1
    --set batch_size=2 --set labeler.members=2 --set labeler.training.steps=5
    --set labeler.network.steps=2
"""


def command_lines(lines: str = LINES) -> list[list[str]]:
    """The words of each line; an indented line continues the one before."""
    return [shlex.split(line) for line in lines.replace("\n   ", " ").strip().splitlines()]
