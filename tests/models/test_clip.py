"""CLIP against transformers' and open_clip's own paths: pixels, towers, precision, files."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ultrafast_rag.config import Config, default_cache_dir
from ultrafast_rag.errors import ConfigError, CorruptError, EncodingError, WeightsError
from ultrafast_rag.models.clip.encoder import ClipEncoder, open_image_encoder
from ultrafast_rag.models.clip.pixels import PixelSpec, decode
from ultrafast_rag.models.device import plan_device

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
DATA = os.environ.get("UFR_TEST_DATA")
DEMO = Path(__file__).resolve().parents[2] / "data" / "models" / "demo-clip"
TEXTS = ["a red bar chart", "rain", "", "two dogs run over a wide green field in the late afternoon sun " * 12]
WORDS = sorted({word for text in TEXTS for word in text.split()})


def photo(seed: int, size: tuple[int, int] = (320, 240), kind: str = "JPEG") -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 255, (7, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


def save_tokenizer(folder: Path, max_tokens: int) -> None:
    """A word-level CLIP-like tokenizer: start and end tokens, the end token has the highest id."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: n for n, word in enumerate(["<unk>", *WORDS])}
    vocabulary |= {"<start>": len(vocabulary), "<end>": len(vocabulary) + 1}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    pair = [("<start>", vocabulary["<start>"]), ("<end>", vocabulary["<end>"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=pair)
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP with random weights in transformers' own layout."""
    path = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    words = len(WORDS) + 3
    text = {"vocab_size": words, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
            "max_position_embeddings": 32, "bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": 0}  # fmt: skip
    vision = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4,
              "image_size": 64, "patch_size": 16}  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=48)
    transformers.CLIPModel(config).eval().save_pretrained(path)
    processor = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
    transformers.CLIPImageProcessor(**processor).save_pretrained(path)
    save_tokenizer(path, 32)
    return path


def encoder_for(folder: Path | str, **settings: Any) -> ClipEncoder:
    config = Config(**{"image_model": str(folder), "device": "cpu", "engine": "torch-f32", **settings})
    return open_image_encoder(config, plan_device(config))


def unit(rows: Any) -> np.ndarray:
    array = np.asarray(rows, dtype=np.float64)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def reference_images(folder: Path, images: list[bytes]) -> np.ndarray:
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    processor = transformers.CLIPImageProcessor.from_pretrained(folder)
    pictures = [Image.open(io.BytesIO(image)).convert("RGB") for image in images]
    with torch.inference_mode():
        pooled = model.vision_model(**processor(images=pictures, return_tensors="pt")).pooler_output
        return unit(model.visual_projection(pooled).numpy())


def reference_texts(folder: Path, ids: list[list[int]]) -> np.ndarray:
    """One text at a time, unpadded, through the library's own pooling."""
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        pooled = [model.text_model(input_ids=torch.tensor([row])).pooler_output for row in ids]
        return unit(model.text_projection(torch.cat(pooled)).numpy())


@pytest.mark.reference
def test_images_match_transformers(folder: Path) -> None:
    images = [photo(n, size) for n, size in enumerate([(320, 240), (240, 320), (64, 64), (700, 90), (1600, 1100), (50, 40)])]
    images.append(photo(9, (200, 150), "PNG"))
    images.append(photo(10, (200, 150), "WEBP"))
    found = encoder_for(folder).encode_images(images)
    assert found.dtype == np.float32
    assert found.shape == (8, 48)
    cosines = (found * reference_images(folder, images)).sum(axis=1)
    assert cosines.min() > 0.999


@pytest.mark.reference
@pytest.mark.parametrize("size", [(320, 240), (240, 321), (1000, 500), (3000, 2200)])
def test_pixels_match_the_image_processor(size: tuple[int, int]) -> None:
    image = photo(4, size)
    processor = transformers.CLIPImageProcessor()
    expected = processor(images=Image.open(io.BytesIO(image)), return_tensors="pt")["pixel_values"][0].numpy()
    spec = PixelSpec(224, 224)
    pixels = decode(image, spec, max_pixels=10**8).transpose(2, 0, 1) / 255.0
    found = (pixels - np.array(spec.mean)[:, None, None]) / np.array(spec.std)[:, None, None]
    assert np.abs(found - expected).mean() < 0.02  # about a grey level


@pytest.mark.reference
def test_texts_match_transformers_without_padding_and_in_order(folder: Path) -> None:
    encoder = encoder_for(folder)
    ids = encoder._towers[0].tokenize(TEXTS)
    assert max(map(len, ids)) == 32
    assert [len(row) for row in ids[:3]] == [6, 3, 2]
    assert all(row[-1] == ids[0][-1] for row in ids)  # the end token survives truncation
    found = encoder.encode_texts(TEXTS)
    assert (found * reference_texts(folder, ids)).sum(axis=1).min() > 0.99999


def test_many_texts_in_small_batches_equal_one_at_a_time(folder: Path) -> None:
    texts = [" ".join(WORDS[n % 7 : n % 7 + n % 11]) for n in range(60)]
    together = encoder_for(folder, batch_tokens=64).encode_texts(texts)
    encoder = encoder_for(folder)
    alone = np.concatenate([encoder.encode_texts([text]) for text in texts])
    assert np.allclose(together, alone, atol=1e-5)


def test_half_precision_stays_close(folder: Path) -> None:
    exact, half = encoder_for(folder), encoder_for(folder, engine="torch-bf16")
    images = [photo(n) for n in range(8)]
    assert (exact.encode_images(images) * half.encode_images(images)).sum(axis=1).min() > 0.99
    assert (exact.encode_texts(TEXTS) * half.encode_texts(TEXTS)).sum(axis=1).min() > 0.99
    assert exact.fingerprint != half.fingerprint
    assert exact.space == half.space


def test_empty_input_gives_empty_vectors(folder: Path) -> None:
    encoder = encoder_for(folder)
    assert encoder.encode_images([]).shape == (0, 48)
    assert encoder.encode_texts([]).shape == (0, 48)


@pytest.mark.fault
def test_broken_and_huge_pictures_are_corrupt_errors(folder: Path) -> None:
    encoder = encoder_for(folder, max_image_pixels=100_000)
    good = photo(0)
    for bad in (b"", b"not a picture", good[:300], photo(1, (400, 300))):
        with pytest.raises(CorruptError) as told:
            encoder.encode_images([good, bad])
        assert " object at 0x" not in str(told.value)


@pytest.mark.fault
def test_out_of_memory_halves_the_batch_and_changes_nothing(folder: Path) -> None:
    encoder, plain = encoder_for(folder, batch_tokens=4096), encoder_for(folder)
    towers = encoder._towers[0]
    whole, sizes = towers.images, []

    def small_only(pixels: Any) -> Any:
        sizes.append(len(pixels))
        if len(pixels) > 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return whole(pixels)

    towers.images = small_only  # type: ignore[method-assign]
    images = [photo(n) for n in range(10)]
    assert np.allclose(encoder.encode_images(images), plain.encode_images(images), atol=1e-5)
    assert sizes[0] > 3


@pytest.mark.fault
def test_rows_that_overflow_half_precision_are_encoded_again_exactly(folder: Path) -> None:
    encoder, exact = encoder_for(folder, engine="torch-bf16"), encoder_for(folder)
    towers = encoder._towers[0]
    whole = towers.images

    def overflowing(pixels: Any) -> Any:
        found = whole(pixels).clone()
        found[0] = float("nan")
        return found

    towers.images = overflowing  # type: ignore[method-assign]
    images = [photo(n) for n in range(3)]
    found = encoder.encode_images(images)
    assert np.isfinite(found).all()
    assert np.allclose(found[0], exact.encode_images(images)[0], atol=1e-5)


@pytest.mark.fault
def test_half_precision_that_fails_often_is_given_up_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, exact = encoder_for(folder, engine="torch-bf16"), encoder_for(folder)
    loads, load = [], encoder._load
    encoder._load = lambda precision, device: loads.append(precision) or load(precision, device)
    whole, runs = encoder._towers[0].images, []

    def overflowing(pixels: Any) -> Any:
        runs.append(len(pixels))
        found = whole(pixels).clone()
        found[:4] = float("nan")
        return found

    encoder._towers[0].images = overflowing  # type: ignore[attr-defined]
    images = [photo(n) for n in range(6)]
    expected = exact.encode_images(images)
    for _ in range(2):
        encoder.encode_images(images)
    assert runs == [6, 6]
    assert "bfloat16 held 67% of the inputs as no number; float32 encodes them all from here on" in encoder.notes[-1]
    for _ in range(3):
        assert np.allclose(encoder.encode_images(images), expected, atol=1e-5)
    assert runs == [6, 6], "asked again all the same"
    assert loads == ["float32"], "loaded once"


def test_pictures_are_decoded_ahead_of_the_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultrafast_rag.models.clip import encoder as module

    encoder, decoded, device_waited = encoder_for(folder), [], []
    encoder._stretch = 2
    ahead, decode, images = threading.Event(), module.decode, encoder._towers[0].images

    def counted(*arguments: Any, **options: Any) -> Any:
        found = decode(*arguments, **options)
        decoded.append(1)
        if len(decoded) >= 4:
            ahead.set()
        return found

    def busy(pixels: Any) -> Any:
        device_waited.append(ahead.wait(20))  # the device is at the first two: the next two are decoded meanwhile
        return images(pixels)

    monkeypatch.setattr(module, "decode", counted)
    encoder._towers[0].images = busy  # type: ignore[method-assign]
    encoder.encode_images([photo(n) for n in range(6)])
    assert device_waited == [True] * 3


def test_fingerprint_follows_the_weights(folder: Path, tmp_path: Path) -> None:
    first = encoder_for(folder).fingerprint
    assert encoder_for(folder).fingerprint == first
    model = transformers.CLIPModel.from_pretrained(folder)
    model.visual_projection.weight.data[0, 0] += 1
    other = tmp_path / folder.name
    model.save_pretrained(other)
    for name in ("tokenizer.json", "preprocessor_config.json"):
        (other / name).write_bytes((folder / name).read_bytes())
    assert encoder_for(other).fingerprint != first


@pytest.mark.parametrize("engine", ["auto", "torch-bf16"])
def test_8bit_is_close_or_falls_back_with_a_reason(folder: Path, engine: str, caplog: pytest.LogCaptureFixture) -> None:
    encoder = encoder_for(folder, quantization="8bit", engine=engine)
    exact = encoder_for(folder)
    images = [photo(n) for n in range(6)]
    assert (encoder.encode_images(images) * exact.encode_images(images)).sum(axis=1).min() > 0.98
    assert (encoder.encode_texts(TEXTS) * exact.encode_texts(TEXTS)).sum(axis=1).min() > 0.98
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes")]
    if engine == "auto" and importlib.util.find_spec("openvino") and importlib.util.find_spec("nncf"):
        assert encoder.precision == "openvino-int8"  # the fast form of it on a CPU
    elif "8bit" in encoder.fingerprint:
        kinds = {type(module).__name__ for module in encoder._towers[0].model.modules()}
        assert "Linear8bitLt" in kinds
    else:
        assert any("8bit" in note for note in encoder.notes)


def test_8bit_failure_is_noted_and_half_precision_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ultrafast_rag.models.clip.towers as towers

    load = towers._load_hf

    def refuse(path: Path, precision: str, device: str, attention: str) -> Any:
        if precision == "8bit":
            raise EncodingError("no kernels for this chip")
        return load(path, precision, device, attention)

    monkeypatch.setattr(towers, "_load_hf", refuse)
    encoder = encoder_for(folder, quantization="8bit")
    assert encoder.precision == "float32"
    assert "no kernels for this chip" in encoder.notes[0]


@pytest.mark.skipif(not (DEMO / "model.safetensors").exists(), reason="data/models/demo-clip is not built")
def test_demo_model_tells_charts_apart_and_says_it_is_one() -> None:
    from PIL import ImageDraw

    encoder = encoder_for(DEMO)
    assert "demonstration" in encoder.notes[0]
    disc, page = Image.new("RGB", (300, 300), "white"), Image.new("RGB", (300, 300), "white")
    ImageDraw.Draw(disc).ellipse((60, 60, 240, 240), fill=(210, 40, 40))
    draw = ImageDraw.Draw(page)
    draw.line((40, 20, 40, 260), fill="black", width=2)
    draw.line((40, 260, 280, 260), fill="black", width=2)
    for n, height in enumerate((60, 120, 90, 180, 150, 200)):
        draw.rectangle((55 + 36 * n, 260 - height, 80 + 36 * n, 259), fill=(40, 90, 200))
    pictures = []
    for picture in (disc, page):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    scores = encoder.encode_texts(["a red circle", "a bar chart with blue bars"]) @ encoder.encode_images(pictures).T
    assert scores[0, 0] > scores[0, 1]
    assert scores[1, 1] > scores[1, 0]


@pytest.fixture(scope="module")
def open_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    open_clip = pytest.importorskip("open_clip")
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("oc")
    torch.manual_seed(1)
    settings = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    model = open_clip.CLIP(**settings)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, str(path / "open_clip_model.safetensors"))
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings, "preprocess_cfg": preprocess}))
    return path


@pytest.mark.reference
def test_open_clip_folder_matches_open_clip_itself(open_clip_folder: Path) -> None:
    import open_clip
    from safetensors.torch import load_file

    encoder = encoder_for(f"open_clip:{open_clip_folder}")
    settings = json.loads((open_clip_folder / "open_clip_config.json").read_text())["model_cfg"]
    model = open_clip.CLIP(**settings).eval()
    model.load_state_dict(load_file(str(open_clip_folder / "open_clip_model.safetensors")))
    transform = open_clip.image_transform(64, is_train=False, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    images = [photo(n, (150 + 20 * n, 120)) for n in range(5)]
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.open(io.BytesIO(image))) for image in images])
        expected_images = unit(model.encode_image(pixels).numpy())
        padded = open_clip.tokenizer.SimpleTokenizer(context_length=77)(TEXTS)
        expected_texts = unit(model.encode_text(padded).numpy())
    assert (encoder.encode_images(images) * expected_images).sum(axis=1).min() > 0.999
    assert (encoder.encode_texts(TEXTS) * expected_texts).sum(axis=1).min() > 0.99999
    assert encoder_for(open_clip_folder).fingerprint == encoder.fingerprint


def test_open_clip_architecture_with_a_local_file(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    from safetensors.torch import save_file

    torch.manual_seed(2)
    model = open_clip.CLIP(**open_clip.get_model_config("ViT-S-32-alt"))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, str(tmp_path / "w.safetensors"))
    encoder = encoder_for(f"open_clip:ViT-S-32-alt/{tmp_path / 'w.safetensors'}", engine="torch-bf16")
    assert encoder.dim == 256
    assert "ViT-S-32-alt/w@" in encoder.fingerprint
    assert encoder.encode_images([photo(0)]).shape == (1, 256)


@pytest.fixture(scope="module")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SigLIP 2 as open_clip describes it, small: its own tokenizer, which pads to the full length, and a timm vision tower."""
    open_clip = pytest.importorskip("open_clip")
    from safetensors.torch import save_file

    from ultrafast_rag.bench.parity import FAMILIES, _tokenizer

    path = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(3)
    known = open_clip.get_model_config("ViT-B-16-SigLIP2")
    settings = {
        **known,
        "embed_dim": 192,
        "vision_cfg": {**known["vision_cfg"], "timm_model_name": "vit_tiny_patch16_224"},
        "text_cfg": {**known["text_cfg"], "context_length": 16, "vocab_size": 512, "width": 192, "heads": 3, "layers": 2},
    }
    built = {name: value for name, value in settings.items() if name != "custom_text"}
    model = open_clip.CustomTextCLIP(**built)
    with torch.no_grad():
        for weight in model.text.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.15)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, str(path / "open_clip_model.safetensors"))
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "squash", "interpolation": "bicubic"}
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings, "preprocess_cfg": preprocess}))
    _tokenizer(FAMILIES["t5 encoder, Dense (sentence-t5)"]).save_pretrained(path)
    return path


@pytest.mark.reference
def test_siglip_with_its_own_tokenizer_matches_open_clip_itself(siglip_folder: Path) -> None:
    import open_clip
    from safetensors.torch import load_file

    encoder = encoder_for(f"open_clip:{siglip_folder}")
    settings = json.loads((siglip_folder / "open_clip_config.json").read_text())["model_cfg"]
    settings.pop("custom_text")
    model = open_clip.CustomTextCLIP(**settings).eval()
    model.load_state_dict(load_file(str(siglip_folder / "open_clip_model.safetensors")))
    texts = ["Two boats, at sunset!", "a", "A lamp " * 30]
    with torch.inference_mode():
        tokens = open_clip.get_tokenizer(f"local-dir:{siglip_folder}")(texts)
        expected = unit(model.encode_text(tokens).numpy())
    assert (encoder.encode_texts(texts) * expected).sum(axis=1).min() > 0.99999
    assert abs(float(expected[0] @ expected[1])) < 0.99
    assert encoder._towers[0].image_tokens == 14 * 14 + 1
    transform = open_clip.image_transform(
        224, is_train=False, mean=(0.5,) * 3, std=(0.5,) * 3, resize_mode="squash", interpolation="bicubic"
    )
    image = photo(1, (300, 200))
    with torch.inference_mode():
        seen = unit(model.encode_image(transform(Image.open(io.BytesIO(image)))[None]).numpy())
    assert (encoder.encode_images([image]) * seen).sum() > 0.999


def test_siglip_without_its_tokenizer_is_refused(siglip_folder: Path, tmp_path: Path) -> None:
    for name in ("open_clip_model.safetensors", "open_clip_config.json"):
        (tmp_path / name).symlink_to(siglip_folder / name)
    with pytest.raises(WeightsError, match=r"no tokenizer\.json; this architecture needs timm/ViT-B-16-SigLIP2's"):
        encoder_for(f"open_clip:{tmp_path}")


@pytest.mark.fault
def test_open_clip_8bit_replaces_its_linear_layers(open_clip_folder: Path) -> None:
    exact = encoder_for(f"open_clip:{open_clip_folder}")
    encoder = encoder_for(f"open_clip:{open_clip_folder}", quantization="8bit", engine="auto")
    images = [photo(n) for n in range(4)]
    assert (encoder.encode_images(images) * exact.encode_images(images)).sum(axis=1).min() > 0.97


@pytest.mark.fault
def test_missing_and_wrong_weights_are_typed_errors(folder: Path, open_clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="openai/clip-vit-base-patch32"):
        encoder_for("openai/clip-vit-base-patch32", offline=True)
    with pytest.raises(ConfigError, match="knows no architecture"):
        encoder_for("open_clip:NoSuchArch/laion")
    with pytest.raises(WeightsError, match=r"PATH\.safetensors"):
        encoder_for("open_clip:ViT-B-32/nosuchtag")
    with pytest.raises(WeightsError):
        encoder_for("open_clip:ViT-B-32/laion2b_s34b_b79k", offline=True)
    with pytest.raises(WeightsError, match="does not fit"):
        encoder_for(f"open_clip:ViT-B-32/{open_clip_folder / 'open_clip_model.safetensors'}")
    other = tmp_path / "bert"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "bert"}')
    (other / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(WeightsError, match="bert"):
        encoder_for(other)
    with pytest.raises(ConfigError):
        open_image_encoder(Config(image_model=None))


@pytest.fixture(scope="module")
def vit_b_32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The true architecture, random weights."""
    path = tmp_path_factory.mktemp("vit-b-32")
    torch.manual_seed(3)
    transformers.CLIPModel(transformers.CLIPConfig()).save_pretrained(path)
    save_tokenizer(path, 77)
    return path


@pytest.mark.reference
@pytest.mark.parametrize("engine", ["openvino-f32", "openvino-bf16"])
@pytest.mark.parametrize("model", ["folder", "demo", "vit_b_32"])
def test_openvino_towers_agree_with_torch(model: str, engine: str, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("openvino")
    path = DEMO if model == "demo" else request.getfixturevalue(model)
    converted, exact = encoder_for(path, engine=engine), encoder_for(path)
    assert converted.precision == (engine if plan_device(Config()).cpu.bf16 else "openvino-f32")
    assert converted.space == exact.space  # so that either can search what the other embedded
    assert converted.fingerprint != exact.fingerprint
    images = [photo(n, (200 + n, 150)) for n in range(21)]  # not a multiple of any batch
    assert (converted.encode_images(images) * exact.encode_images(images)).sum(axis=1).min() > 0.999
    texts = TEXTS + [" ".join(WORDS[: n % 9]) for n in range(30)]
    found = converted.encode_texts(texts)
    assert (found * exact.encode_texts(texts)).sum(axis=1).min() > 0.999
    assert (found[:1] * converted.encode_texts(texts[:1])).sum() > 0.9999  # alone or in a batch


def test_towers_are_converted_once_and_a_damaged_one_again(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    told: list[str] = []

    def opened() -> ClipEncoder:
        config = Config(image_model=str(folder), device="cpu", cache_dir=tmp_path)
        return open_image_encoder(config, plan_device(config), progress=told.append)

    before = opened().encode_texts(TEXTS)
    assert sorted("text" in step for step in told) == [False, True]
    opened()
    assert len(told) == 2
    (damaged,) = (tmp_path / "engines").glob("*clip-text*/model.bin")
    damaged.write_bytes(damaged.read_bytes()[:-64])
    with pytest.warns(RuntimeWarning, match="damaged"):
        again = opened()
    assert len(told) == 3
    assert np.allclose(again.encode_texts(TEXTS), before, atol=1e-6)


@pytest.mark.public
@pytest.mark.reference
@pytest.mark.long
def test_int8_pictures_stay_near_float32_on_photographs_it_was_not_calibrated_on(vit_b_32: Path, public_data: Path) -> None:
    pytest.importorskip("nncf")
    images = [path.read_bytes() for path in sorted((public_data / "images").rglob("*.jpg"))]
    for model in (vit_b_32, DEMO):
        encoder, exact = encoder_for(model, engine="openvino-int8"), encoder_for(model).encode_images(images)
        assert encoder.precision == "openvino-int8"
        cosines = (encoder.encode_images(images) * exact).sum(axis=1)
        assert cosines.mean() > 0.995
        assert cosines.min() > 0.98


def test_int8_that_strays_from_float32_is_not_used(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ultrafast_rag.models.clip.openvino as towers

    convert = towers.convert_once

    def strays(path: Path, module: str, task: dict[str, Any], **options: Any) -> Any:
        if task["kind"] == "int8":
            raise EncodingError("int8 is too far from float32 with these weights: mean cosine 0.5000")
        return convert(path, module, task, **options)

    monkeypatch.setattr(towers, "convert_once", strays)
    (tmp_path / "engines").mkdir()
    for path in (default_cache_dir() / "engines").glob("*-clip-*-f16-*"):  # converted by the tests above, but not in 8 bits
        (tmp_path / "engines" / path.name).symlink_to(path, target_is_directory=True)
    encoder = encoder_for(folder, engine="openvino-int8", cache_dir=tmp_path)
    assert encoder.precision in ("openvino-bf16", "openvino-f32")
    assert "too far from float32" in encoder.notes[0]


def test_torch_stands_in_when_towers_cannot_be_converted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ultrafast_rag.models.clip.openvino as towers

    def refuse(*_: Any, **__: Any) -> None:
        raise EncodingError("conversion to OpenVINO failed: no room")

    monkeypatch.setattr(towers, "convert_once", refuse)
    encoder = encoder_for(folder, engine="auto", cache_dir=tmp_path)
    assert encoder.precision == plan_device(Config(device="cpu")).dtype
    assert "no room" in encoder.notes[0]
    assert encoder.encode_texts(TEXTS).shape == (4, 48)


def test_a_question_to_an_index_with_pictures_imports_no_torch(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from ultrafast_rag import UltraFastRAG

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.md").write_text("The harbour master counts the red boats each evening.", encoding="utf-8")
    (tmp_path / "in" / "boat.jpg").write_bytes(photo(1))
    with UltraFastRAG(tmp_path / "index", image_model=str(DEMO), speech_model=None, quiet=True) as rag:
        rag.ingest(tmp_path / "in")
    code = """
import json, sys
from ultrafast_rag import UltraFastRAG
with UltraFastRAG(sys.argv[1], quiet=True) as rag:
    shown = rag.search("a picture of something", modality="image")
    said = rag.query("Who counts the red boats?")
    like = rag.search(open(sys.argv[2], "rb").read())
heavy = {"torch", "transformers", "nncf"} & set(sys.modules)
print(json.dumps([len(shown), said.text, like[0].score, sorted(heavy)]))
"""
    ran = [sys.executable, "-c", code, str(tmp_path / "index"), str(tmp_path / "in" / "boat.jpg")]
    shown, said, like, heavy = json.loads(subprocess.run(ran, check=True, capture_output=True, text=True, timeout=120).stdout)
    assert shown == 1
    assert "harbour master" in said
    assert like > 0.99
    assert heavy == []


@pytest.mark.public
@pytest.mark.skipif(not DATA, reason="UFR_TEST_DATA is not set")
def test_all_public_photographs_through_the_true_architecture(vit_b_32: Path) -> None:
    """ViT-B/32 with random weights: every picture gets a vector, equal pictures equal ones."""
    images = [path.read_bytes() for path in sorted((Path(DATA or "") / "images").rglob("*.jpg"))]
    assert len(images) == 44
    encoder = encoder_for(vit_b_32, engine="auto")
    assert encoder.dim == 512
    vectors = encoder.encode_images([*images, images[0]])
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-3
    assert vectors[0] @ vectors[-1] > 0.9999
