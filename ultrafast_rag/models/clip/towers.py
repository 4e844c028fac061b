"""The two towers of a CLIP model, from transformers or open_clip, behind one small surface.

Texts are not padded to the tower's 77 tokens: attention there is causal, so what follows the end token
cannot change it, and the vector is read at each text's own last position. Three times faster for
ordinary captions, and exact.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ultrafast_rag.errors import EncodingError, WeightsError, require
from ultrafast_rag.models.batching import is_out_of_memory
from ultrafast_rag.models.clip.pixels import Pixels, PixelSpec
from ultrafast_rag.models.quantize import bits_options, to_8bit
from ultrafast_rag.types import Vectors

Ids = npt.NDArray[np.int64]
Precision = str  # "float32", "bfloat16", "float16", "8bit" or "4bit"


class Towers(Protocol):
    """Both towers on one device. image_tokens: positions a picture takes, for the memory budget.

    `images` and `texts` may return before the device is done; `vectors` waits.
    """

    dim: int
    max_tokens: int
    image_tokens: int
    spec: PixelSpec

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids with start and end tokens, each at most max_tokens."""
        ...

    def images(self, pixels: Pixels) -> Any:
        """uint8 (n, side, side, 3) -> what `vectors` takes."""
        ...

    def texts(self, ids: Ids, last: Ids) -> Any:
        """int64 (n, length) padded at the end, position of each end token (n,) -> what `vectors` takes."""
        ...

    def vectors(self, found: Any) -> Vectors:
        """float32 (n, dim), unit rows where the tower's answer was finite."""
        ...

    def release(self) -> None:
        """Give cached device memory back, before a smaller batch is tried."""
        ...


class _TorchTowers(ABC):
    """Towers in torch: `embed_images` and `embed_texts` are the model's, the rest is the way to the device and back."""

    torch: Any
    device: str

    def images(self, pixels: Pixels) -> Any:
        """As `Towers` says."""
        with self.torch.inference_mode():
            return self.torch.nn.functional.normalize(self.embed_images(self._sent(pixels)), dim=1)

    def texts(self, ids: Ids, last: Ids) -> Any:
        """As `Towers` says."""
        with self.torch.inference_mode():
            return self.torch.nn.functional.normalize(self.embed_texts(self._sent(ids), self._sent(last)), dim=1)

    def vectors(self, found: Any) -> Vectors:
        """As `Towers` says."""
        vectors: Vectors = found.cpu().numpy()
        return vectors

    def release(self) -> None:
        """As `Towers` says."""
        if self.device != "cpu":
            self.torch.cuda.empty_cache()

    @abstractmethod
    def embed_images(self, pixels: Any) -> Any:
        """uint8 (n, side, side, 3) on the device -> float32 (n, dim), not normalised."""

    @abstractmethod
    def embed_texts(self, ids: Any, last: Any) -> Any:
        """int64 (n, length) padded at the end, position of each end token (n,) -> float32 (n, dim), not normalised."""

    def _sent(self, array: Any) -> Any:
        tensor = self.torch.from_numpy(array)
        return tensor if self.device == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)


class HfTowers(_TorchTowers):
    """transformers' CLIPModel. Raises WeightsError for a folder that is not one, EncodingError when it cannot be loaded."""

    def __init__(self, folder: Path, precision: Precision, device: str, *, attention: str = "sdpa") -> None:
        self.torch, self.device = require("torch"), device
        self.model = _load_hf(folder, precision, device, attention)
        config = self.model.config
        self.dim, self.max_tokens = int(config.projection_dim), int(config.text_config.max_position_embeddings)
        self.image_tokens = (config.vision_config.image_size // config.vision_config.patch_size) ** 2 + 1
        self.spec = PixelSpec.read(folder, int(config.vision_config.image_size))
        self._dtype = self.model.vision_model.embeddings.patch_embedding.weight.dtype
        self._normal = _Normal(self.torch, self.spec, device, self._dtype)
        self._tokenizer = clip_tokenizer(folder, self.max_tokens)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """As `Towers` says."""
        return [list(found.ids) for found in self._tokenizer.encode_batch(list(texts))]

    def embed_images(self, pixels: Any) -> Any:
        """As said above."""
        pooled = self.model.vision_model(pixel_values=self._normal(pixels)).pooler_output
        return self.model.visual_projection(pooled).float()

    def embed_texts(self, ids: Any, last: Any) -> Any:
        """As said above."""
        states = self.model.text_model(input_ids=ids).last_hidden_state
        pooled = states[self.torch.arange(ids.shape[0], device=ids.device), last]
        return self.model.text_projection(pooled).float()


class OpenClipTowers(_TorchTowers):
    """open_clip's model from its own description and safetensors.

    Raises WeightsError when they do not fit one another, EncodingError for an architecture whose text
    tower would have to be fetched.
    """

    def __init__(
        self,
        description: dict[str, Any],
        checkpoint: Path,
        precision: Precision,
        device: str,
        *,
        preprocess: dict[str, Any] | None = None,
    ) -> None:
        self.torch, open_clip = require("torch"), require("open_clip", package="open-clip-torch", extra="images")
        self.device = device
        self.model = _load_open_clip(description, checkpoint, precision, device)
        text, vision = description["text_cfg"], description["vision_cfg"]
        size = vision.get("image_size", 224)
        side = int(size[0] if isinstance(size, (list, tuple)) else size)
        self.dim, self.max_tokens = int(description["embed_dim"]), int(text.get("context_length", 77))
        named = re.search(r"patch(\d+)", str(vision.get("timm_model_name")))
        self.image_tokens = (side // int(vision.get("patch_size") or (named.group(1) if named else 32))) ** 2 + 1
        self.spec = PixelSpec.from_open_clip(side, preprocess or {})
        self._dtype = self.model.logit_scale.dtype
        self._normal = _Normal(self.torch, self.spec, device, self._dtype)
        self._tokenizer = _open_clip_tokenizer(open_clip, text, checkpoint.parent, self.max_tokens)
        own = hasattr(self._tokenizer, "sot_token_id")  # CLIP's; another pads as its model was trained
        self._unpadded = own and hasattr(self.model, "token_embedding") and self.model.text_pool_type in ("argmax", "eos")

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """As `Towers` says."""
        tokenizer = self._tokenizer
        if not hasattr(tokenizer, "sot_token_id"):
            return [list(map(int, row)) for row in tokenizer(list(texts))]
        room = self.max_tokens - 2
        return [[tokenizer.sot_token_id, *tokenizer.encode(text)[:room], tokenizer.eot_token_id] for text in texts]

    def embed_images(self, pixels: Any) -> Any:
        """As said above."""
        return self.model.encode_image(self._normal(pixels)).float()

    def embed_texts(self, ids: Any, last: Any) -> Any:
        """As said above."""
        torch, model = self.torch, self.model
        if not self._unpadded:
            return model.encode_text(torch.nn.functional.pad(ids, (0, self.max_tokens - ids.shape[1]))).float()
        length = ids.shape[1]
        cast = model.transformer.get_cast_dtype()
        states = model.token_embedding(ids).to(cast) + model.positional_embedding[:length].to(cast)
        mask = model.attn_mask[:length, :length] if model.attn_mask is not None else None
        states = model.ln_final(model.transformer(states, attn_mask=mask))
        pooled = states[torch.arange(len(ids), device=ids.device), last]
        projection = model.text_projection
        return (projection(pooled) if isinstance(projection, torch.nn.Linear) else pooled @ projection).float()


def _open_clip_tokenizer(open_clip: Any, text: dict[str, Any], folder: Path, max_tokens: int) -> Any:
    """CLIP's own, or the one that the architecture names, from the checkpoint's folder: SigLIP's words have other numbers."""
    name = text.get("hf_tokenizer_name")
    if not name:
        return open_clip.tokenizer.SimpleTokenizer(context_length=max_tokens)
    if not (folder / "tokenizer.json").is_file():
        raise WeightsError(f"{folder} has no tokenizer.json; this architecture needs {name}'s, beside its weights")
    try:
        return open_clip.tokenizer.HFTokenizer(str(folder), context_length=max_tokens, **text.get("tokenizer_kwargs", {}))
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{folder}/tokenizer.json cannot be read: {error}") from error


class _Normal:
    """uint8 (n, h, w, 3) -> normalised (n, 3, h, w) in the tower's type, on its device."""

    def __init__(self, torch: Any, spec: PixelSpec, device: str, dtype: Any) -> None:
        shape = (1, 3, 1, 1)
        std = torch.tensor(spec.std, dtype=torch.float32, device=device).reshape(shape) * 255.0
        self._scale = 1.0 / std
        self._shift = torch.tensor(spec.mean, dtype=torch.float32, device=device).reshape(shape) * 255.0 / std
        self._dtype = dtype

    def __call__(self, pixels: Any) -> Any:
        return (pixels.permute(0, 3, 1, 2).float() * self._scale - self._shift).to(self._dtype)


def _load_hf(folder: Path, precision: Precision, device: str, attention: str) -> Any:
    torch, transformers = require("torch"), require("transformers")
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "attn_implementation": attention}
    options |= bits_options(precision, device) if precision in ("8bit", "4bit") else {"dtype": getattr(torch, precision)}
    kind = _model_type(folder)
    if kind != "clip":
        raise WeightsError(f"{folder.name} holds a {kind or 'nameless'} model; set Config(image_model=...) to a CLIP checkpoint")
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model = transformers.CLIPModel.from_pretrained(str(folder), **options)
    except (ValueError, OSError, RuntimeError, ImportError, NotImplementedError) as error:
        if is_out_of_memory(error):
            raise
        raise EncodingError(f"{folder.name} cannot be loaded as {precision} on {device}: {error}") from error
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
    model.eval()
    return model if precision in ("8bit", "4bit") else model.to(device)


def _model_type(folder: Path) -> str:
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type", ""))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder / 'config.json'} cannot be read: {error}") from error


def clip_tokenizer(folder: Path, max_tokens: int) -> Any:
    """The tokenizers-library tokenizer of the folder: truncated, end token kept, not padded."""
    path = folder / "tokenizer.json"
    if path.is_file():
        found = require("tokenizers").Tokenizer.from_file(str(path))
    else:
        transformers = require("transformers")
        try:
            found = transformers.CLIPTokenizerFast.from_pretrained(str(folder), local_files_only=True).backend_tokenizer
        except (OSError, ValueError, TypeError) as error:
            raise WeightsError(f"{folder.name} has neither tokenizer.json nor vocab.json with merges.txt: {error}") from error
    found.no_padding()
    found.enable_truncation(max_tokens)
    return found


def _load_open_clip(description: dict[str, Any], checkpoint: Path, precision: Precision, device: str) -> Any:
    torch, safetensors = require("torch"), require("safetensors.torch")
    open_clip = require("open_clip", package="open-clip-torch", extra="images")
    settings = dict(description)
    custom = settings.pop("custom_text", False)
    if "hf_model_name" in settings["text_cfg"]:
        raise EncodingError("this open_clip architecture takes its text tower from another model; choose a plain CLIP")
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    try:
        model = kind(**settings)
        model.load_state_dict(safetensors.load_file(str(checkpoint)), strict=True)
    except (RuntimeError, TypeError, KeyError, ValueError, OSError) as error:
        raise WeightsError(f"{checkpoint.name} does not fit the architecture asked for: {str(error)[:300]}") from error
    model.eval()
    if precision == "8bit":
        to_8bit(model, device)
        return model
    if precision == "4bit":
        raise EncodingError("4-bit layers are for transformers' models; use quantization='8bit' or 'none' with open_clip")
    return model.to(device=device, dtype=getattr(torch, precision))
