"""The reader's network in torch: MiniLM with low-rank adapters, and three numbers a token or passage on top.

The encoder's own weights are those of the default text model and are not shipped again; what
`data/train_reader.py` learned is a low-rank change to each of its matrices (LoRA: Hu et al. 2021, arXiv
2106.09685), its layer norms, the second segment's embedding, and the heads. Merged, it is an ordinary BERT.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultrafast_rag.errors import WeightsError, require

RANK = 32  # of each change: 1.3 million numbers in all, 2.7 MB in float16
_ADAPTED = ("query", "key", "value", "dense")  # every matrix of a BERT layer ends with one of these names


def open_network(folder: Path, *, adapters: Path | None = None) -> Any:
    """A torch module: (input_ids, attention_mask, token_type_ids) int64 (n, w) -> start (n, w), end (n, w), answerable (n,).

    folder: the text model's. adapters: what training wrote, merged into the weights; None leaves fresh adapters to train.
    Logits all: position 0 of start and end means "no answer". Raises WeightsError when the files do not fit one another.
    """
    from ultrafast_rag.models.text.torch import quiet

    torch, transformers = require("torch"), require("transformers")
    with quiet(transformers):
        encoder = transformers.AutoModel.from_pretrained(
            str(folder), attn_implementation="eager" if adapters else "sdpa", local_files_only=True, use_safetensors=True,
            trust_remote_code=False, add_pooling_layer=False, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
    network = _module(torch, encoder)
    if adapters is not None:
        _merge(torch, network, _read(adapters))
        return network.eval()
    for parameter in encoder.parameters():
        parameter.requires_grad_(False)
    for name, layer in list(encoder.encoder.named_modules()):
        if isinstance(layer, torch.nn.LayerNorm):
            layer.requires_grad_(True)
        elif isinstance(layer, torch.nn.Linear) and name.rsplit(".", 1)[-1] in _ADAPTED:
            parent = encoder.encoder.get_submodule(name.rsplit(".", 1)[0])
            setattr(parent, name.rsplit(".", 1)[-1], _adapted(torch, layer))
    encoder.embeddings.token_type_embeddings.weight.requires_grad_(True)
    return network


def trained(network: Any) -> dict[str, Any]:
    """What training changed, by name: for `safetensors.torch.save_file`, in float16."""
    return {name: value.detach().half().contiguous() for name, value in network.named_parameters() if value.requires_grad}


def _module(torch: Any, encoder: Any) -> Any:
    class Network(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            width = encoder.config.hidden_size
            self.encoder = encoder
            self.span = torch.nn.Linear(width, 2)
            self.middle = torch.nn.Linear(width, width)
            self.answerable = torch.nn.Linear(width, 1)

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> tuple[Any, Any, Any]:
            found = self.encoder(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
            states = found.last_hidden_state
            # an answer stands in the passage (segment 1); position 0 stands for "none"
            allowed = token_type_ids.bool() & attention_mask.bool()
            allowed = torch.cat([torch.ones_like(allowed[:, :1]), allowed[:, 1:]], 1)
            span = self.span(states).masked_fill(~allowed[:, :, None], -1e4)
            whole = torch.tanh(self.middle(states[:, 0]))
            return span[..., 0], span[..., 1], self.answerable(whole)[:, 0]

    return Network()


def _adapted(torch: Any, layer: Any) -> Any:
    class Adapted(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        """base(x) + x down up: `up` starts at zero, so that training starts at the model itself."""

        def __init__(self) -> None:
            super().__init__()
            self.base = layer
            self.down = torch.nn.Parameter(torch.randn(RANK, layer.in_features) / layer.in_features**0.5)
            self.up = torch.nn.Parameter(torch.zeros(layer.out_features, RANK))

        def forward(self, x: Any) -> Any:
            return self.base(x) + (x @ self.down.T) @ self.up.T

    return Adapted()


def _read(adapters: Path) -> Mapping[str, Any]:
    from safetensors.torch import load_file

    try:
        return {name: value.float() for name, value in load_file(str(adapters)).items()}
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"the reader's weights {adapters} cannot be read: {error}") from error


def _merge(torch: Any, network: Any, changes: Mapping[str, Any]) -> None:
    """Add up·down to each matrix, and put norms, segment embedding and heads in place."""
    own = dict(network.named_parameters())
    with torch.no_grad():
        for name, value in changes.items():
            if name.endswith(".down"):
                continue
            matrix = name.endswith(".up")
            target = own.get(name.removesuffix(".up") + ".weight" if matrix else name)
            change = value @ changes[name.removesuffix("up") + "down"] if matrix else value
            if target is None or target.shape != change.shape:
                raise WeightsError(f"the reader's weights do not fit this text model: {name}")
            target.copy_(target + change if matrix else change)
