"""Whisper against openai-whisper's and transformers' own paths; gates, layouts, precision, refusals."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import types
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, DeviceMemoryError, MissingExtraError, WeightsError
from ultrafast_rag.models.device import plan_device, usable_cores
from ultrafast_rag.models.speech import checkpoints as whisper_files
from ultrafast_rag.models.speech import faster as faster_module
from ultrafast_rag.models.speech.checkpoints import find_checkpoint, load_model
from ultrafast_rag.models.speech.faster import FasterWhisperTranscriber
from ultrafast_rag.models.speech.gates import Gates, level_dbfs
from ultrafast_rag.models.speech.vad import Voice
from ultrafast_rag.models.speech.whisper import _LOOP, WhisperTranscriber, open_transcriber
from ultrafast_rag.types import Segment

torch = pytest.importorskip("torch")
whisper = pytest.importorskip("whisper")
from safetensors.torch import save_file  # noqa: E402 - after the skip

DATA = os.environ.get("UFR_TEST_DATA")
DEMO = Path(__file__).resolve().parents[2] / "data" / "models" / "demo-whisper"
SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
DIMS = {
    "n_mels": 80,
    "n_audio_ctx": 1500,
    "n_audio_state": 32,
    "n_audio_head": 2,
    "n_audio_layer": 2,
    "n_vocab": 51865,
    "n_text_ctx": 32,
    "n_text_state": 32,
    "n_text_head": 2,
    "n_text_layer": 2,
}
OPEN = Gates(
    no_speech=2.0,
    logprob=-99.0,
    compression=1e9,
    faint_dbfs=-200.0,
    stock_no_speech=2.0,
    voiced=-1.0,
    clearly_voiced=0.0,
    letters_per_s=1e9,
    temperatures=(0.0,),
)


def noise(seconds: float, loud: float = 3000.0, seed: int = 0) -> np.ndarray:
    t = np.arange(int(seconds * 16_000)) / 16_000
    swell = np.abs(np.sin(2 * np.pi * 1.7 * t))
    return (np.random.default_rng(seed).normal(0, loud, len(t)) * swell).clip(-32768, 32767).astype(np.int16)


def random_model(seed: int = 0) -> Any:
    """Random weights that listen: scaled so that attention to the sound decides the tokens."""
    torch.manual_seed(seed)
    model = whisper.model.Whisper(whisper.model.ModelDimensions(**DIMS)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.6 if "token_embedding" in name else 0.25)
        model.decoder.positional_embedding.normal_(0, 0.5)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whisper")
    (path / "dims.json").write_text(json.dumps(DIMS))
    (path / "config.json").write_text(json.dumps({"demo": True, "model_type": "openai-whisper"}))
    save_file({name: value.contiguous() for name, value in random_model().state_dict().items()}, str(path / "model.safetensors"))
    return path


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Three seconds of the sample recording."""
    from ultrafast_rag.extract.media.audio import decode_pcm

    return np.concatenate(list(decode_pcm(SAMPLES / "station_report.ogg")))[80_000:128_000].astype(np.float32) / 32768.0


def transcriber(folder: Path, gates: Gates | None = None, precision: str = "float32") -> WhisperTranscriber:
    return WhisperTranscriber(find_checkpoint(str(folder), Config()), device="cpu", precision=precision, gates=gates)


@pytest.mark.reference
@pytest.mark.parametrize("seed", [0, 1])
def test_segments_match_openai_whisper_with_the_gates_open(folder: Path, seed: int) -> None:
    pcm = noise(30.0, seed=seed)
    found = transcriber(folder, OPEN).transcribe(pcm.tobytes(), language="en")
    model = load_model(find_checkpoint(str(folder), Config()))
    expected = whisper.transcribe(
        model,
        pcm.astype(np.float32) / 32768.0,
        language="en",
        temperature=0.0,
        condition_on_previous_text=False,
        fp16=False,
        no_speech_threshold=None,
        logprob_threshold=None,
        compression_ratio_threshold=None,
        verbose=None,
    )["segments"]
    # of the first window alone: openai-whisper fills up a last one with another silence than it was trained on
    expected = [s for s in expected if s["seek"] == 0 and s["end"] > s["start"] and any(c.isalnum() for c in s["text"])]
    assert len(expected) >= 1
    assert [s.text for s in found[: len(expected)]] == [_LOOP.sub(r"\1", s["text"].strip()) for s in expected]
    times = np.array([(s.start_s, s.end_s) for s in found[: len(expected)]])
    assert np.abs(times - [(s["start"], s["end"]) for s in expected]).max() < 0.011


@pytest.mark.reference
def test_encoder_matches_the_library(folder: Path) -> None:
    pcm = noise(11.0)
    found = transcriber(folder).encode_audio(pcm.astype(np.float32) / 32768.0)
    mel = whisper.pad_or_trim(whisper.log_mel_spectrogram(whisper.pad_or_trim(pcm.astype(np.float32) / 32768.0)), 3000)
    with torch.inference_mode():
        expected = random_model().encoder(mel[None])
    assert torch.allclose(found, expected, atol=1e-4)
    half = transcriber(folder, precision="bfloat16").encode_audio(pcm.astype(np.float32) / 32768.0)
    assert torch.nn.functional.cosine_similarity(half, expected, dim=-1).min() > 0.98


def test_offset_is_added_to_every_time(folder: Path) -> None:
    listener, pcm = transcriber(folder, OPEN), noise(8.0).tobytes()
    plain, moved = listener.transcribe(pcm, language="en"), listener.transcribe(pcm, language="en", offset_s=100.5)
    assert plain
    assert [(s.start_s + 100.5, s.end_s + 100.5, s.text) for s in plain] == [(s.start_s, s.end_s, s.text) for s in moved]
    assert all(0 <= s.start_s < s.end_s <= 8.0 for s in plain)


def test_detected_language_is_told(folder: Path) -> None:
    found = transcriber(folder, OPEN).transcribe(noise(5.0).tobytes())
    assert found[0].language in whisper.tokenizer.LANGUAGES
    assert transcriber(folder, OPEN).transcribe(noise(5.0).tobytes(), language="de")[0].language == "de"


def test_silence_is_never_given_to_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = transcriber(folder)
    monkeypatch.setattr(listener, "encode_audio", lambda sound: pytest.fail("the model was asked"))
    assert listener.transcribe(np.zeros(48_000, np.int16).tobytes()) == []
    assert listener.transcribe(b"") == []
    assert listener.transcribe(b"\0\1" * 100) == []
    assert listener.transcribe(np.random.default_rng(0).normal(0, 5, 480_000).astype(np.int16).tobytes()) == []


def test_improbable_words_are_not_invented(folder: Path) -> None:
    """Random weights give words of low probability: the gates must hold them back."""
    assert transcriber(folder).transcribe(noise(10.0).tobytes(), language="en") == []


@dataclasses.dataclass
class Result:
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float = 1.5


def test_gates_hold_back_what_whisper_invents() -> None:
    gates = Gates()
    assert gates.is_silence(Result(-0.5, 0.8))
    assert not gates.is_silence(Result(-0.1, 0.8))
    assert not gates.is_silence(Result(-0.5, 0.3))
    assert gates.is_guess(Result(-1.2, 0.1))
    assert gates.is_guess(Result(-0.3, 0.1, compression_ratio=3.0))
    assert not gates.is_guess(Result(-0.3, 0.1))


def keeps(
    text: str, sound: np.ndarray, *, logprob: float = -0.4, no_speech: float = 0.1, span: tuple[float, float] = (0.0, 3.0)
) -> bool:
    return Gates().keeps(Segment(*span, text), sound, Voice(sound), Result(logprob, no_speech))


def test_segments_without_words_or_without_sound_are_dropped(speech: np.ndarray) -> None:
    assert keeps("The bridge opens at nine.", speech)
    assert not keeps("The bridge opens at nine.", speech * 1e-4)
    for invented in ("[Music]", "(applause)", "♪♪", "♪ la la ♪", "...", " * music * "):
        assert not keeps(invented, speech, no_speech=0.0), invented
    assert keeps("[Music] The bridge opens.", speech)
    assert not keeps(" Thank you for watching!", speech, no_speech=0.5)
    assert keeps(" Thank you for watching!", speech, no_speech=0.01)


def test_words_over_sound_without_a_voice_are_kept_only_when_certain() -> None:
    hiss = (np.random.default_rng(0).normal(0, 0.05, 48_000)).astype(np.float32)
    assert not keeps("The bridge opens at nine.", hiss)
    assert keeps("The bridge opens at nine.", hiss, logprob=-0.2)


def test_the_more_the_model_doubts_that_anybody_speaks_the_surer_the_words_must_be(speech: np.ndarray) -> None:
    words = "The bridge opens at nine."
    assert keeps(words, speech, logprob=-0.9, no_speech=0.05)
    assert not keeps(words, speech, logprob=-0.55, no_speech=0.45)
    assert keeps(words, speech, logprob=-0.3, no_speech=0.45)
    assert keeps(words, speech, logprob=-0.2, no_speech=0.59)


def test_more_letters_than_anybody_speaks_in_the_time_are_dropped(speech: np.ndarray) -> None:
    words = "There are eight purple flowers behind the harbour."
    assert keeps(words, speech, span=(0.0, 2.5))
    assert not keeps(words, speech, span=(1.0, 1.04))
    assert keeps("Nine.", speech, span=(1.0, 1.04))


@pytest.mark.reference
def test_level_is_rms_below_full_scale() -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert level_dbfs(tone.astype(np.float32)) == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert level_dbfs(np.zeros(10, np.float32)) == -120


def test_guess_is_tried_again_and_stays_deterministic(folder: Path) -> None:
    gates = dataclasses.replace(OPEN, logprob=0.0, temperatures=(0.0, 0.6))  # everything is a guess
    listener, pcm, asked = transcriber(folder, gates), noise(2.0).tobytes(), []
    decode = listener._whisper.decode

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(whisper, name)

        @staticmethod
        def decode(model: Any, states: Any, options: Any) -> Any:
            result = decode(model, states, options)
            asked.append((options.temperature, result[0].tokens))
            return result

    listener._whisper = Counting()
    assert listener.transcribe(pcm, language="en") == []
    first = list(asked)
    assert [temperature for temperature, _ in first][:2] == [0.0, 0.6]
    asked.clear()
    torch.manual_seed(99)
    listener.transcribe(pcm, language="en")
    assert asked == first


@pytest.mark.reference
def test_transformers_layout_gives_the_same_states(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(5)
    config = transformers.WhisperConfig(
        vocab_size=51865,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_target_positions=64,
    )
    model = transformers.WhisperForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    ours = load_model(find_checkpoint(str(tmp_path), Config()))
    mel = torch.randn(1, 80, 3000)
    tokens = torch.tensor([[50258, 50259, 50359, 11, 12, 13]])
    with torch.inference_mode():
        theirs = model(input_features=mel, decoder_input_ids=tokens).logits
        found = ours(mel, tokens)
    assert torch.allclose(found, theirs, atol=1e-3)


def test_fingerprint_names_weights_and_precision(folder: Path, tmp_path: Path) -> None:
    first = transcriber(folder).fingerprint
    assert transcriber(folder).fingerprint == first
    assert transcriber(folder, precision="bfloat16").fingerprint != first
    other = tmp_path / folder.name
    other.mkdir()
    (other / "dims.json").write_text(json.dumps(DIMS))
    state = {name: value.contiguous() for name, value in random_model(7).state_dict().items()}
    save_file(state, str(other / "model.safetensors"))
    assert transcriber(other).fingerprint != first


def test_demonstration_model_says_so(folder: Path) -> None:
    assert "demonstration" in transcriber(folder).notes[0]


def test_8bit_is_close_or_falls_back_with_a_reason(folder: Path) -> None:
    config = Config(speech_model=str(folder), quantization="8bit", device="cpu")
    found = open_transcriber(config, plan_device(config))
    assert isinstance(found, WhisperTranscriber)
    if found.precision != "8bit":
        assert any("8bit" in note for note in found.notes)
        return
    kinds = [type(module).__name__ for module in found._model.modules()]
    assert kinds.count("Linear8bit") >= 2 * 6 + 2 * 10 - 4
    sound = noise(6.0).astype(np.float32) / 32768.0
    exact, quantized = transcriber(folder).encode_audio(sound), found.encode_audio(sound)
    assert torch.nn.functional.cosine_similarity(exact, quantized, dim=-1).mean() > 0.98
    found._gates = OPEN
    assert found.transcribe(noise(3.0).tobytes(), language="en")


def test_4bit_falls_back_with_a_reason(folder: Path) -> None:
    config = Config(speech_model=str(folder), quantization="4bit", device="cpu")
    found = open_transcriber(config, plan_device(config))
    assert isinstance(found, WhisperTranscriber)
    assert any("4bit" in note for note in found.notes)


@pytest.mark.fault
def test_pickled_file_of_unknown_hash_is_refused_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"dims": DIMS, "model_state_dict": {}}, tmp_path / "base.pt")
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("the file was opened"))
    with pytest.raises(WeightsError, match="none of the files OpenAI published"):
        find_checkpoint(str(tmp_path / "base.pt"), Config())


def test_published_file_is_loaded_once_its_hash_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "whisper" / "base.pt"
    path.parent.mkdir()
    torch.save({"dims": DIMS, "model_state_dict": random_model().state_dict()}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(whisper_files, "published", lambda: {"base": f"https://example.org/models/{digest}/base.pt"})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    checkpoint = find_checkpoint("base", Config())
    assert checkpoint.revision == digest[:16]
    assert torch.equal(load_model(checkpoint).state_dict()["decoder.ln.weight"], random_model().state_dict()["decoder.ln.weight"])


@pytest.mark.fault
def test_missing_and_wrong_models_are_typed_errors(folder: Path, tmp_path: Path) -> None:
    offline = Config(offline=True, cache_dir=tmp_path)
    with pytest.raises(WeightsError, match="openai/whisper-base"):
        find_checkpoint("base", offline)
    with pytest.raises(WeightsError, match="no Whisper model"):
        find_checkpoint("basse", offline)
    with pytest.raises(WeightsError, match=r"dims\.json"):
        find_checkpoint(str(tmp_path), offline)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "dims.json").write_text(json.dumps({**DIMS, "n_audio_state": 64}))
    (broken / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(WeightsError, match="no Whisper checkpoint"):
        load_model(find_checkpoint(str(broken), offline))
    with pytest.raises(ConfigError):
        open_transcriber(Config(speech_model=None))
    with pytest.raises(ConfigError, match="knows no language"):
        transcriber(folder).transcribe(noise(2.0).tobytes(), language="qx")


def test_faster_whisper_without_the_package_names_the_command() -> None:
    config = Config(speech_model="faster-whisper:base", offline=True, device="cpu")
    try:
        import faster_whisper  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match=r"ultrafast_rag\[faster-whisper\]"):
            open_transcriber(config, plan_device(config))
    else:
        with pytest.raises(WeightsError, match="faster-whisper"):
            open_transcriber(config, plan_device(config))


def test_window_gone_wrong_is_divided_and_heard_again(folder: Path, speech: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the model guesses at: every part of a long guess is asked about again in shorter windows."""
    listener, asked = transcriber(folder, dataclasses.replace(OPEN, logprob=0.0)), []
    encode = listener.encode_audio
    monkeypatch.setattr(listener, "encode_audio", lambda sound: asked.append(len(sound) / 16_000) or encode(sound))
    assert listener.transcribe((np.tile(speech, 4) * 32767).astype("<i2").tobytes(), language="en") == []
    assert asked[0] > 11
    assert sum(asked[1:]) > 11
    assert sum(length < 6 for length in asked) >= 2


def test_words_repeated_over_and_over_are_written_once() -> None:
    assert _LOOP.sub(r"\1", "you you you you and good night.") == "you and good night."
    assert _LOOP.sub(r"\1", "in the fog. In the fog. in the fog. in the fog. At nine") == "in the fog. At nine"
    assert _LOOP.sub(r"\1", "No, no, no. Nine nineteen.") == "No, no, no. Nine nineteen."


def test_checkpoint_tells_how_long_a_window_it_hears_well(folder: Path, tmp_path: Path) -> None:
    assert find_checkpoint(str(DEMO), Config()).window_s == 12
    assert find_checkpoint(str(folder), Config()).window_s is None
    for wrong in (0, "12"):
        (tmp_path / "config.json").write_text(json.dumps({"speech_window_s": wrong}))
        (tmp_path / "dims.json").write_text(json.dumps(DIMS))
        (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
        with pytest.raises(WeightsError, match="speech_window_s"):
            find_checkpoint(str(tmp_path), Config())


@pytest.mark.public
@pytest.mark.skipif(not DATA, reason="UFR_TEST_DATA is not set")
def test_public_silence_gives_no_words(folder: Path) -> None:
    with wave.open(str(Path(DATA or "") / "audio" / "containers" / "silent_1s.wav")) as file:
        pcm = file.readframes(file.getnframes())
    assert transcriber(folder).transcribe(pcm) == []


def test_transcribing_leaves_cores_to_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = torch.get_num_threads(), []
    heard = transcriber(folder, OPEN)
    encode = heard.encode_audio
    monkeypatch.setattr(heard, "encode_audio", lambda sound: seen.append(torch.get_num_threads()) or encode(sound))
    heard.transcribe(noise(3.0).tobytes(), language="en")
    assert set(seen) == {max(1, usable_cores() // 2)}
    assert torch.get_num_threads() == before


LOADS = """
import json, sys
from pathlib import Path
import torch, whisper, safetensors.torch, ultrafast_rag.models.device
from ultrafast_rag.config import Config
from ultrafast_rag.models.speech.checkpoints import find_checkpoint, load_model
from ultrafast_rag.models.speech.whisper import _place
def kb(name): return int(next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(name)).split()[1])
torch.zeros(1)
before = kb("VmRSS")
model = load_model(find_checkpoint(sys.argv[1], Config()))
_place(torch, model, "cpu", sys.argv[2])
print(json.dumps([1024 * (kb("VmHWM") - before), sum(p.numel() for p in model.parameters())]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
@pytest.mark.parametrize(("precision", "most"), [("bfloat16", 6.5), ("float32", 7.5)])
def test_a_large_whisper_is_loaded_without_a_second_copy(tmp_path: Path, precision: str, most: float) -> None:
    """large-v3 has 1.55 billion parameters: 12 GB hold it at under 7.5 bytes each; made in float32 first it took 10."""
    import subprocess
    import sys

    import transformers

    torch.manual_seed(0)
    shape = {"d_model": 384, "encoder_layers": 12, "decoder_layers": 12, "num_mel_bins": 128, "vocab_size": 51866}
    heads = {"encoder_attention_heads": 6, "decoder_attention_heads": 6, "encoder_ffn_dim": 1536, "decoder_ffn_dim": 1536}
    with torch.device("meta"):
        model = transformers.WhisperModel(transformers.WhisperConfig(**shape, **heads))
    stored = {name: torch.full(value.shape, 0.01, dtype=torch.float16) for name, value in model.state_dict().items()}
    save_file({f"model.{name}": value for name, value in stored.items()}, str(tmp_path / "model.safetensors"))
    (tmp_path / "model.fp32-00001-of-00001.safetensors").write_bytes(b"not looked at")
    model.config.save_pretrained(tmp_path)
    command = [sys.executable, "-c", LOADS, str(tmp_path), precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    peak_bytes, parameters = json.loads(done.stdout)
    assert parameters > 60e6
    assert peak_bytes / parameters < most


def sample_sounds(name: str = "station_report.ogg") -> list[bytes]:
    """The stretches that a recording of the samples is cut into."""
    from ultrafast_rag.extract.media.audio import AudioExtractor

    parts = AudioExtractor(Config()).extract(SAMPLES / name)
    return [element.data or b"" for part in parts for element in part.elements if element.kind == "sound"]


@pytest.mark.reference
@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.long)])
def test_windows_in_a_batch_are_heard_as_they_are_one_by_one(precision: str) -> None:
    """The demonstration model, on a stretch of its recording, on both halves of it, on noise and on silence."""
    sound = sample_sounds()[0]
    half = len(sound) // 4 * 2
    sounds = [sound, noise(6.0).tobytes(), sound[half:], bytes(64_000), sound[:half]]
    checkpoint, sizes = find_checkpoint(str(DEMO), Config()), []
    together = WhisperTranscriber(checkpoint, device="cpu", precision=precision, windows=4)
    encode = together.encode_audio
    together.encode_audio = lambda *windows: sizes.append(len(windows)) or encode(*windows)  # type: ignore[method-assign]
    found = together.transcribe_many(sounds, language="en")
    alone = WhisperTranscriber(checkpoint, device="cpu", precision=precision)
    assert alone.windows == 1
    assert found == alone.transcribe_many(sounds, language="en")
    assert len(" ".join(segment.text for heard in found for segment in heard).split()) > 60
    assert max(sizes) == 4
    assert len(sizes) < sum(sizes) / 2, "windows were not put together"


def test_language_is_told_window_by_window_in_a_batch_too(folder: Path) -> None:
    sounds = [noise(5.0, seed=seed).tobytes() for seed in range(3)]
    model = find_checkpoint(str(folder), Config())
    together = WhisperTranscriber(model, device="cpu", precision="float32", gates=OPEN, windows=3)
    assert together.transcribe_many(sounds) == [transcriber(folder, OPEN).transcribe(sound) for sound in sounds]


@pytest.mark.fault
def test_out_of_memory_takes_fewer_windows_and_changes_no_word(folder: Path) -> None:
    sounds = [noise(5.0, seed=seed).tobytes() for seed in range(4)]
    model, sizes = find_checkpoint(str(folder), Config()), []
    together = WhisperTranscriber(model, device="cpu", precision="float32", gates=OPEN, windows=4)
    encode = together.encode_audio

    def small_only(*windows: np.ndarray) -> Any:
        sizes.append(len(windows))
        if len(windows) > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return encode(*windows)

    together.encode_audio = small_only  # type: ignore[method-assign]
    most = 1
    assert together.transcribe_many(sounds, language="en") == [
        transcriber(folder, OPEN).transcribe(s, language="en") for s in sounds
    ]
    assert sizes[:3] == [4, 2, 1]
    most = 0
    with pytest.raises(DeviceMemoryError, match="one window of speech does not fit on cpu; choose a smaller speech_model"):
        together.transcribe_many(sounds, language="en")


class FasterWhisper:
    """The surface of faster-whisper 1.2 that is used: a model that says which sound it heard, by the level of it."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    def WhisperModel(self, name: str, **options: Any) -> FasterWhisper:
        self.log.append(options)
        return self

    def BatchedInferencePipeline(self, model: FasterWhisper) -> Any:
        outer = self

        class Pipeline:
            def transcribe(
                self, sound: np.ndarray, *, clip_timestamps: list[dict[str, float]], batch_size: int, **options: Any
            ) -> Any:
                outer.log.append((len(clip_timestamps), batch_size, options["language"], options["without_timestamps"]))
                found = [
                    outer.heard(sound[int(c["start"] * 16_000) : int(c["end"] * 16_000)], c["start"]) for c in clip_timestamps
                ]
                return iter(found), None

        return Pipeline()

    def transcribe(self, sound: np.ndarray, *, language: str | None, **options: Any) -> Any:
        self.log.append("alone")
        return iter([self.heard(sound, 0.0)]), types.SimpleNamespace(language=language or self.detect_language(sound)[0])

    def detect_language(self, sound: np.ndarray) -> tuple[str, float, None]:
        return ("de" if len(sound) > 40_000 else "en"), 0.9, None

    def heard(self, sound: np.ndarray, start: float) -> Any:
        return types.SimpleNamespace(
            text=f" {len(sound)} samples", start=start + 0.5, end=start + 1.5, seek=int(start * 100),
            avg_logprob=-0.1, no_speech_prob=0.0, compression_ratio=1.0,
        )  # fmt: skip


def test_faster_whisper_takes_stretches_of_a_language_together_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[Any] = []
    monkeypatch.setattr(faster_module, "require", lambda *_, **__: FasterWhisper(log))
    sounds = [noise(seconds, seed=n).tobytes() for n, seconds in enumerate((2.25, 3.0, 2.5, 2.125))] + [bytes(64_000)]
    options: dict[str, Any] = {"precision": "8bit", "offline": True, "gates": dataclasses.replace(OPEN, faint_dbfs=-60.0)}
    gpu = FasterWhisperTranscriber("base", device="cuda:1", **options)
    assert log.pop() == {"device": "cuda", "device_index": 1, "compute_type": "int8_float16", "local_files_only": True}
    together = gpu.transcribe_many(sounds)
    assert log == [(3, 8, "en", False), (1, 8, "de", False)]
    cpu = FasterWhisperTranscriber("base", device="cpu", **options)
    assert together == cpu.transcribe_many(sounds)
    assert log.count("alone") == 4
    assert [heard[0].text for heard in together[:4]] == [f"{len(sound) // 2} samples" for sound in sounds[:4]]
    assert [heard[0].language for heard in together[:4]] == ["en", "de", "en", "en"]
    assert together[4] == []


@pytest.mark.fault
def test_out_of_memory_while_layers_are_made_8bit_is_no_fault_of_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    from ultrafast_rag.models import quantize

    pytest.importorskip("bitsandbytes")

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(quantize, "_replacement", full)
    with pytest.raises(torch.OutOfMemoryError):  # plain layers are larger: the pool makes room, and tries again
        quantize.to_8bit(random_model(), "cpu")


@pytest.mark.fault
def test_out_of_memory_while_faster_whisper_loads_is_no_fault_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(FasterWhisper):
        def WhisperModel(self, name: str, **options: Any) -> FasterWhisper:
            raise RuntimeError("CUDA failed with error out of memory")

    monkeypatch.setattr(faster_module, "require", lambda *_, **__: Full([]))
    with pytest.raises(RuntimeError, match="out of memory"):
        FasterWhisperTranscriber("base", device="cuda:0", precision="float16", offline=True)
