"""Weights of a Hugging Face T5 in the layout of `tesserec.networks.t5`."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tesserec.networks.t5 import T5Config


def from_hugging_face(weights: Mapping[str, Tensor], config: T5Config) -> dict[str, Tensor]:
    """The state dict of our `T5` for that of a `T5ForConditionalGeneration` of the same sizes (ReLU, not gated).

    Embeddings stay where they are: `weights["shared.weight"]`.
    """
    out: dict[str, Tensor] = {}

    def attention(theirs: str, ours: str) -> None:
        q, k, v, o = (weights[f"{theirs}.{name}.weight"] for name in "qkvo")
        if ours.endswith("cross"):
            out[f"{ours}.q.weight"], out[f"{ours}.kv.weight"] = q, torch.cat([k, v])
        else:
            out[f"{ours}.qkv.weight"] = torch.cat([q, k, v])
        out[f"{ours}.out.weight"] = o

    for stack, sublayers in (("encoder", ["attention"]), ("decoder", ["attention", "cross"])):
        out[f"{stack}_bias.table.weight"] = weights[
            f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        ]
        out[f"{stack}_norm.weight"] = weights[f"{stack}.final_layer_norm.weight"]
        for number in range(config.n_layers):
            block, layer = f"{stack}.block.{number}.layer", f"{stack}.{number}"
            for place, name in enumerate(sublayers):
                kind = "SelfAttention" if name == "attention" else "EncDecAttention"
                attention(f"{block}.{place}.{kind}", f"{layer}.{name}")
                out[f"{layer}.{name}.norm.weight"] = weights[f"{block}.{place}.layer_norm.weight"]
            place = len(sublayers)
            for name in ("wi", "wo"):
                out[f"{layer}.feed_forward.{name}.weight"] = weights[f"{block}.{place}.DenseReluDense.{name}.weight"]
            out[f"{layer}.feed_forward.norm.weight"] = weights[f"{block}.{place}.layer_norm.weight"]
    return out
