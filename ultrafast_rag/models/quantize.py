"""8-bit and 4-bit linear layers by bitsandbytes.

transformers' own models go through its BitsAndBytesConfig (`bits_options`); openai-whisper and open_clip
have layers of their own, so theirs are replaced one by one (`to_8bit`).
"""

from __future__ import annotations

import logging
from typing import Any

from ultrafast_rag.errors import EncodingError, require
from ultrafast_rag.models.batching import is_out_of_memory

_LEAST = 1024  # weights; below this a layer gains nothing
# said of every layer at every call, or of kernels that a CPU does without; nothing a user can act on
_SAID_TOO_OFTEN = ("MatMul8bitLt: inputs will be cast", "Failed to load CPU gemm_4bit_forward")


def bits_options(bits: str, device: str) -> dict[str, Any]:
    """What transformers' from_pretrained needs for "8bit" or "4bit" layers. MissingExtraError without bitsandbytes.

    4 bits are NF4 with its scales quantized too: closer to normally distributed weights than FP4, and 0.4 bits a weight
    smaller.  Source: Dettmers et al. 2023 (QLoRA), sections 3 and 4.
    """
    torch, transformers = require("torch"), require("transformers")
    _bitsandbytes()
    half = torch.float16 if device != "cpu" else torch.bfloat16
    four = {"load_in_4bit": True, "bnb_4bit_compute_dtype": half, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    chosen = {"load_in_8bit": True} if bits == "8bit" else four
    return {"quantization_config": transformers.BitsAndBytesConfig(**chosen), "device_map": {"": device}, "dtype": half}


def _bitsandbytes() -> Any:
    """The package, with two of its log lines held back; its other warnings come through."""
    for name in ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops"):
        logger = logging.getLogger(name)
        if _tells_more not in logger.filters:
            logger.addFilter(_tells_more)
    return require("bitsandbytes", extra="quant")


def _tells_more(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_SAID_TOO_OFTEN)


def to_8bit(model: Any, device: str) -> int:
    """Replace every plain linear layer of `model` in place and move it to `device`; how many were replaced.

    Layers whose weights are used without calling them (inside torch's MultiheadAttention) are left as
    they are. Raises EncodingError when bitsandbytes cannot run here, MissingExtraError without it.
    """
    torch, bitsandbytes = require("torch"), _bitsandbytes()
    half = torch.float16 if device != "cpu" else torch.bfloat16
    replaced = 0
    try:
        for parent in list(model.modules()):
            if isinstance(parent, torch.nn.MultiheadAttention):
                continue
            for name, layer in list(parent.named_children()):
                if isinstance(layer, torch.nn.Linear) and layer.weight.numel() >= _LEAST:
                    setattr(parent, name, _replacement(layer, bitsandbytes, torch, half))
                    replaced += 1
        model.to(device)
    except (RuntimeError, ValueError, AttributeError, NotImplementedError) as error:
        if is_out_of_memory(error):  # plain layers are larger still: whoever holds models makes room, and tries again
            raise
        raise EncodingError(f"bitsandbytes cannot make 8-bit layers on {device}: {error}") from error
    return replaced


def _replacement(layer: Any, bitsandbytes: Any, torch: Any, half: Any) -> Any:
    class Linear8bit(bitsandbytes.nn.Linear8bitLt):  # type: ignore[misc]
        """Answers in the type it was asked in; bitsandbytes' own answers in half precision on some devices."""

        def forward(self, x: Any) -> Any:
            return super().forward(x.to(half)).to(x.dtype)

    new = Linear8bit(layer.in_features, layer.out_features, bias=layer.bias is not None, has_fp16_weights=False)
    new.weight = bitsandbytes.nn.Int8Params(layer.weight.data.to(half).contiguous(), requires_grad=False, has_fp16_weights=False)
    if layer.bias is not None:
        new.bias = torch.nn.Parameter(layer.bias.data.to(half), requires_grad=False)
    return new.eval()
