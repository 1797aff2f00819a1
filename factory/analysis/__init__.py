"""The paper's tables and figures on the user's own data, one module per analysis.

Baranchuk et al. (2022), "Label-Efficient Semantic Segmentation with Diffusion Models". An analysis
is an `Analysis` (`base`) in a module of its own, listed in `names`. It says what its *cells* are
(one variant on one split), how one is run, and what follows from all of them; everything else is
done here: splits, features on disk, resuming, progress, dry runs, and the files that are written.
"""
