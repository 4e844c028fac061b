"""The model pool: what stays, what goes, under threads and full devices."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, DeviceMemoryError, WeightsError
from ultrafast_rag.models.device import CpuFacts, DevicePlan, GpuFacts
from ultrafast_rag.models.pool import ModelPool, estimate_bytes

GB = 2**30
CPU = DevicePlan(("cpu",), "float32", "none", False, "sdpa", ("torch-f32",), CpuFacts("test", 2))
GPU = replace(CPU, devices=("cuda:0",), dtype="float16", gpus=(GpuFacts(0, "T4", (7, 5), 14 * GB, 15 * GB, False, True),))


class Model:
    """A model that remembers whether it was closed."""

    alive = 0

    def __init__(self, name: str) -> None:
        self.name, self.closed = name, False

    def double(self, value: int) -> int:
        assert not self.closed
        return 2 * value

    def close(self) -> None:
        self.closed = True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def pool_of(limit_gb: float | None, **sizes_gb: float) -> tuple[ModelPool, dict[str, list[Model]]]:
    pool = ModelPool(Config(), CPU, limit_bytes=None if limit_gb is None else int(limit_gb * GB), clock=Clock())
    made: dict[str, list[Model]] = {name: [] for name in sizes_gb}
    for name, size in sizes_gb.items():

        def load(name: str = name) -> Model:
            made[name].append(Model(name))
            return made[name][-1]

        pool.register(name, load, size_bytes=int(size * GB))
    return pool, made


def loaded(pool: ModelPool) -> set[str]:
    return {row.name for row in pool.use() if row.loaded}


def test_models_load_on_first_use_once() -> None:
    pool, made = pool_of(10, text=1, picture=1)
    assert loaded(pool) == set()
    for _ in range(3):
        with pool.lease("text") as model:
            assert model.double(4) == 8
    assert len(made["text"]) == 1
    assert loaded(pool) == {"text"}


def test_whisper_goes_before_clip_comes_when_both_do_not_fit() -> None:
    pool, made = pool_of(1.5, text=0.2, speech=1.0, picture=0.8)
    for name in ("text", "speech", "text", "picture"):
        with pool.lease(name):
            pass
    assert loaded(pool) == {"text", "picture"}
    assert made["speech"][0].closed
    rows = {row.name: row for row in pool.use()}
    assert "make room for picture" in rows["speech"].reason
    assert "speech made room" in rows["picture"].reason
    with pool.lease("speech"):
        pass
    assert loaded(pool) == {"text", "speech"}
    assert rows["speech"].loads == 1
    assert next(row for row in pool.use() if row.name == "speech").loads == 2


def test_least_recently_used_goes_first() -> None:
    pool, _ = pool_of(3, a=1, b=1, c=1, d=1)
    for name in ("a", "b", "c", "a", "d"):
        with pool.lease(name):
            pass
    assert loaded(pool) == {"a", "c", "d"}


def load(pool: ModelPool, *names: str) -> None:
    for name in names or tuple(pool._slots):
        with pool.lease(name):
            pass


def test_no_limit_on_a_cpu_drops_nothing() -> None:
    pool, _ = pool_of(None, a=100, b=100)
    load(pool)
    assert loaded(pool) == {"a", "b"}
    assert pool.used_bytes("cpu") == 200 * GB
    assert ModelPool(Config(max_vram_gb=1.0), CPU).limit_bytes is None


def test_a_model_in_use_is_never_dropped() -> None:
    pool, made = pool_of(1.5, speech=1.0, picture=1.0)
    with pool.lease("speech") as speech, pool.lease("picture") as picture:
        assert speech.double(1) == 2
        assert picture.double(1) == 2
        assert "speech is in use" in next(row.reason for row in pool.use() if row.name == "picture")
    assert not made["speech"][0].closed


def test_a_model_over_the_limit_by_itself_is_a_clear_error() -> None:
    pool, _ = pool_of(1, huge=3, small=0.5)
    with pool.lease("small"):
        pass
    with pytest.raises(DeviceMemoryError, match=r"huge needs about 3\.00 GB.*smaller model"), pool.lease("huge"):
        pass
    with pool.lease("small") as model:
        assert model.double(2) == 4


def test_out_of_memory_while_loading_drops_the_others_and_tries_again() -> None:
    pool, made = pool_of(10, a=1)
    attempts: list[int] = []

    def tight() -> Model:
        attempts.append(1)
        if not made["a"][0].closed:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return Model("tight")

    pool.register("tight", tight, size_bytes=GB)
    with pool.lease("a"):
        pass
    with pool.lease("tight") as model:
        assert model.name == "tight"
    assert len(attempts) == 2
    assert loaded(pool) == {"tight"}


def test_out_of_memory_twice_is_a_device_memory_error() -> None:
    pool, _ = pool_of(10, a=1)

    def never() -> Model:
        raise RuntimeError("CUDA out of memory.")

    pool.register("never", never, size_bytes=GB)
    with pytest.raises(DeviceMemoryError, match="does not fit"), pool.lease("never"):
        pass
    assert not next(row for row in pool.use() if row.name == "never").loaded


def test_loaders_errors_pass_and_leave_the_pool_usable() -> None:
    pool, _ = pool_of(10, a=1)
    answers = iter([WeightsError("not here"), None])

    def sometimes() -> Model:
        if error := next(answers):
            raise error
        return Model("sometimes")

    pool.register("sometimes", sometimes, size_bytes=GB)
    with pytest.raises(WeightsError), pool.lease("sometimes"):
        pass
    assert pool.used_bytes("cpu") == 0
    with pool.lease("sometimes") as model:
        assert model.name == "sometimes"


def test_release_and_close_let_models_go_and_clear_memory_keeps_them() -> None:
    pool, made = pool_of(10, a=1, b=1)
    load(pool)
    pool.clear_memory()
    assert loaded(pool) == {"a", "b"}
    assert pool.release("a")
    assert not pool.release("a")
    assert made["a"][0].closed
    assert loaded(pool) == {"b"}
    pool.close()
    assert made["b"][0].closed


def test_unknown_names_are_config_errors() -> None:
    pool, _ = pool_of(1, a=1)
    with pytest.raises(ConfigError, match="known are a"):
        pool.release("b")
    with pytest.raises(ConfigError, match="known are a"), pool.lease("b"):
        pass


def test_threads_load_a_model_once_and_never_meet_a_closed_one() -> None:
    pool, made = pool_of(2.1, a=1, b=1, c=1)
    for name in ("a", "b", "c"):
        slow = pool._slots[name].load
        pool._slots[name].load = lambda slow=slow: (time.sleep(0.002), slow())[1]
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(60):
                with pool.lease(str(rng.choice(["a", "b", "c"]))) as model:
                    assert model.double(3) == 6
        except BaseException as error:  # shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    open_models = sum(not model.closed for models in made.values() for model in models)
    assert open_models == len(loaded(pool))


def test_loading_one_model_does_not_hold_up_another() -> None:
    pool, _ = pool_of(10, quick=1)
    started, go = threading.Event(), threading.Event()

    def slow() -> Model:
        started.set()
        assert go.wait(10)
        return Model("slow")

    pool.register("slow", slow, size_bytes=GB)
    thread = threading.Thread(target=load, args=(pool, "slow"))
    thread.start()
    assert started.wait(10)
    with pool.lease("quick") as model:
        assert model.double(1) == 2
    go.set()
    thread.join()
    assert loaded(pool) == {"slow", "quick"}


def test_limit_follows_config_then_what_is_free() -> None:
    assert ModelPool(Config(max_vram_gb=4.0), GPU).limit_bytes == 4 * GB
    pool = ModelPool(Config(), GPU)
    assert pool.limit_bytes == 14 * GB - (600 << 20)
    assert "free" in pool.limit_reason


def test_devices_have_limits_of_their_own() -> None:
    pool = ModelPool(Config(), replace(GPU, devices=("cuda:0", "cuda:1")), limit_bytes=GB)
    pool.register("a", lambda: Model("a"), size_bytes=GB, devices=("cuda:0",))
    pool.register("b", lambda: Model("b"), size_bytes=GB, devices=("cuda:1",))
    load(pool)
    assert loaded(pool) == {"a", "b"}


def test_sizes_follow_files_then_names(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    for stored in (np.float32, np.float16):  # what a file is stored in does not change what is loaded
        save_file({"layer.weight": np.zeros((1000, 1000), stored)}, tmp_path / "model.safetensors")
        assert estimate_bytes("x", CPU, folder=tmp_path) == pytest.approx(4_000_000 * 1.15, rel=0.01)
        assert estimate_bytes("x", GPU, folder=tmp_path) == pytest.approx(2_000_000 * 1.15, rel=0.01)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    assert estimate_bytes("x", GPU, folder=tmp_path) == estimate_bytes("unknown", GPU)
    clip = estimate_bytes("openai/clip-vit-base-patch32", GPU)
    text = estimate_bytes("sentence-transformers/all-MiniLM-L6-v2", GPU)
    speech = estimate_bytes("base", GPU)
    assert clip > speech > text
    assert clip + text + speech < 1.5 * GB
    assert estimate_bytes("large-v3-turbo", GPU) < estimate_bytes("large", GPU)
    assert estimate_bytes("someone/unknown", GPU) > speech


WIDE = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 512, "vocab_size": 2000}
DEEP = {**WIDE, "num_hidden_layers": 6}
QWEN = {**WIDE, "num_key_value_heads": 2, "head_dim": 32}
DISTIL = {"dim": 128, "n_layers": 3, "n_heads": 4, "hidden_dim": 512, "vocab_size": 2000}
TEN = [
    *(("Bert", WIDE), ("Bert", DEEP), ("Bert", {**WIDE, "vocab_size": 20_000}), ("Roberta", WIDE), ("Electra", WIDE)),
    *(("Albert", WIDE), ("MPNet", WIDE), ("ModernBert", {**WIDE, "pad_token_id": 0}), ("Qwen3", QWEN), ("DistilBert", DISTIL)),
]


@pytest.mark.reference
@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
def test_estimates_are_within_30_percent_of_ten_models_as_they_are_loaded(tmp_path: Path, quantization: str) -> None:
    """What torch holds after loading, in half precision as on a GPU; 15 % of an estimate is for what works on it."""
    import torch
    import transformers

    from ultrafast_rag.models.quantize import bits_options

    plan = replace(GPU, quantization=quantization)
    if quantization != "none":
        pytest.importorskip("bitsandbytes")
    for number, (kind, settings) in enumerate(TEN):
        folder = tmp_path / str(number)
        config = getattr(transformers, f"{kind}Config")(**settings)
        model_class = getattr(transformers, f"{kind}Model")
        model_class(config).half().save_pretrained(folder)
        options = {"dtype": torch.float16} if quantization == "none" else bits_options(quantization, "cpu")
        model = model_class.from_pretrained(folder, **options)
        held = sum(value.numel() * value.element_size() for value in [*model.parameters(), *model.buffers()])
        estimate = estimate_bytes(str(folder), plan) / 1.15
        assert held == pytest.approx(estimate, rel=0.3), (kind, settings)


def test_replicas_count_on_every_gpu_and_speech_on_the_last() -> None:
    from ultrafast_rag.models.registry import SPEECH, Models
    from ultrafast_rag.types import TEXT_SPACE, VISUAL_SPACE

    class Facts(dict):
        def get_meta(self, name, default=None):
            return self.get(name, default)

    models = Models(Config(), Facts())
    models.__dict__["plan"] = replace(GPU, devices=("cuda:0", "cuda:1"))
    models.pool.limit_bytes = 14 * GB
    for name in (TEXT_SPACE, VISUAL_SPACE, SPEECH, "rerank"):
        models.pool.register(name, lambda: Model("x"), size_bytes=GB, devices=models._devices(name))
        with models.pool.lease(name):
            pass
    assert models.pool.used_bytes("cuda:0") == 3 * GB
    assert models.pool.used_bytes("cuda:1") == 3 * GB
