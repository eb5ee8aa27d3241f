"""Convert weights that the papers' authors released.

Tian et al. released their cross-modality network as a Keras 2 file. All localization
networks were released as PyTorch modules; convert a `state_dict` to arrays first:

    torch.nn.RNNBase._flat_weights = ()  # Modules pickled in 2018 lack it.
    module = torch.load("AV_att.pt", map_location="cpu", weights_only=False)
    state = {name: array.numpy() for name, array in module.state_dict().items()}
    model = convert_avel(state, categories)
"""

from avsdn_tf.official_weights.heads import (
    convert_cace,
    convert_cmbs,
    convert_cmran,
    convert_cpsp,
    convert_psp,
)
from avsdn_tf.official_weights.tian import (
    convert_avel,
    convert_dmrn,
    load_official_weights,
)

__all__ = [
    "convert_avel",
    "convert_cace",
    "convert_cmbs",
    "convert_cmran",
    "convert_cpsp",
    "convert_dmrn",
    "convert_psp",
    "load_official_weights",
]
