"""Extract features of videos: decode them, run the backbones, store the results."""

import importlib.util

from avsdn_tf.errors import UserError

_MISSING = [
    name for name in ("av", "tensorflow_hub") if importlib.util.find_spec(name) is None
]
if _MISSING:
    raise UserError(
        f"Videos need {' and '.join(_MISSING)}, which the extra `video` installs: "
        "pip install 'avsdn_tf[video]'"
    )
