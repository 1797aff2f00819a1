"""The dataset on disk: keys, members of a sample, deterministic tars, the manifest, reading back.

    DIR/dataset.json             the manifest, written last: a folder without it is not finished
        shards/NAME-000000.tar   KEY.png|jpg, KEY.json, KEY.seg.png of every kept sample, and
                                 KEY.unc.png, KEY.prob.png of every one if asked for
        samples.parquet          one row per candidate, dropped ones too

The same samples give the same bytes: members are sorted, times and owners are fixed, and nothing
in a file depends on when, where or by how many workers it was written.
"""

from factory_core.dataset.files import (
    CANDIDATES_DIR,
    JOB_NAME,
    MANIFEST_NAME,
    MARKER_SUFFIX,
    PREVIEW_NAME,
    SAMPLES_NAME,
    SHARDS_DIR,
    Member,
    TarWriter,
    canonical_json,
    markers,
    read_open_tar,
    read_tar,
)
from factory_core.dataset.manifest import (
    FORMAT_VERSION,
    DamagedManifest,
    Dataset,
    FileInfo,
    Manifest,
    Totals,
    open_dataset,
    read_manifest,
    read_members,
    read_samples,
)
from factory_core.dataset.probabilities import LEVEL_SUM, probability_levels, unstacked
from factory_core.dataset.sample import (
    IGNORE,
    MAX_SAMPLES,
    UNCERTAINTY_LEVELS,
    ImageFormat,
    Sample,
    decode_sample,
    default_palette,
    encode_mask,
    encode_rgb,
    encode_sample,
    level_at_quantile,
    overlay,
    sample_key,
    uncertainty_levels,
)

__all__ = [
    "CANDIDATES_DIR",
    "FORMAT_VERSION",
    "IGNORE",
    "JOB_NAME",
    "LEVEL_SUM",
    "MANIFEST_NAME",
    "MARKER_SUFFIX",
    "MAX_SAMPLES",
    "PREVIEW_NAME",
    "SAMPLES_NAME",
    "SHARDS_DIR",
    "UNCERTAINTY_LEVELS",
    "DamagedManifest",
    "Dataset",
    "FileInfo",
    "ImageFormat",
    "Manifest",
    "Member",
    "Sample",
    "TarWriter",
    "Totals",
    "canonical_json",
    "decode_sample",
    "default_palette",
    "encode_mask",
    "encode_rgb",
    "encode_sample",
    "level_at_quantile",
    "markers",
    "open_dataset",
    "overlay",
    "probability_levels",
    "read_manifest",
    "read_members",
    "read_open_tar",
    "read_samples",
    "read_tar",
    "sample_key",
    "uncertainty_levels",
    "unstacked",
]
