"""The device plan: flags read right, GPUs told apart, a reason for every choice, no torch where no GPU can be."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.models import device
from ultrafast_rag.models.device import CpuFacts, GpuFacts, few_threads, plan_device, usable_cores

EPYC = "processor\t: 0\nmodel name\t: AMD EPYC 9B45\nflags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16\n"
BROADWELL = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\nflags\t\t: fpu avx avx2 f16c\n"
GRAVITON = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm bf16\n"


def gpu(index: int = 0, *, capability: tuple[int, int] = (7, 5), supported: bool = True) -> GpuFacts:
    return GpuFacts(index, "Tesla T4", capability, 15 * 2**30, 16 * 2**30, capability >= (8, 0), supported)


@pytest.fixture
def machine(monkeypatch):
    """Sets the CPU and GPUs the plan sees."""

    def setup(cpuinfo: str, gpus: tuple[GpuFacts, ...] = ()) -> None:
        facts = device._parse_cpuinfo(cpuinfo, name="CPU", cores=2)
        monkeypatch.setattr(device, "cpu_facts", lambda: facts)
        monkeypatch.setattr(device, "gpu_may_be_there", lambda asked: asked != "cpu" and bool(gpus))
        monkeypatch.setattr(device, "gpu_facts", lambda: gpus)
        monkeypatch.setattr(device, "_has_openvino", lambda: True)

    return setup


@pytest.mark.parametrize(
    ("cpuinfo", "vnni", "bf16", "avx512"),
    [(EPYC, True, True, True), (BROADWELL, False, False, False), (GRAVITON, True, True, False), ("", False, False, False)],
)
def test_flags_are_read_from_cpuinfo(cpuinfo, vnni, bf16, avx512):
    facts = device._parse_cpuinfo(cpuinfo, name="some CPU", cores=3)
    assert (facts.vnni, facts.bf16, facts.avx512, facts.cores) == (vnni, bf16, avx512, 3)
    assert "3 cores" in facts.summary()


def test_this_machine_has_a_plan_with_a_reason_for_every_choice():
    plan = plan_device(Config())
    assert 1 <= plan.cpu.cores <= (os.cpu_count() or 1)
    rows = {name: (value, reason) for name, value, reason in plan.rows()}
    for name in ("devices", "dtype", "quantization", "compile", "attention", "engines"):
        value, reason = rows[name]
        assert value
        assert reason


def test_a_cpu_plan_does_not_import_torch():
    code = (
        "import sys; from ultrafast_rag.models.device import plan_device; from ultrafast_rag.config import Config;"
        "plan_device(Config(device='cpu')); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_engines_follow_the_instructions_of_the_cpu(machine):
    machine(EPYC)
    assert plan_device(Config()).engines == ("openvino-int8", "openvino-bf16", "openvino-f32", "torch-bf16", "torch-f32")
    assert plan_device(Config()).dtype == "bfloat16"
    machine(BROADWELL)
    assert plan_device(Config()).engines == ("openvino-f32", "torch-f32")
    assert plan_device(Config()).dtype == "float32"


def test_an_engine_asked_for_is_the_only_candidate(machine):
    machine(EPYC)
    plan = plan_device(Config(engine="torch-f32"))
    assert (plan.engines, plan.dtype) == (("torch-f32",), "float32")


def test_a_t4_gets_half_precision_and_no_bf16(machine):
    machine(BROADWELL, (gpu(0), gpu(1)))
    plan = plan_device(Config())
    assert plan.devices == ("cuda:0", "cuda:1")
    assert (plan.dtype, plan.attention, plan.engines[0], plan.on_gpu) == ("float16", "sdpa", "torch-f16", True)


def test_a_gpu_without_kernels_is_left_alone_and_named(machine):
    machine(BROADWELL, (gpu(capability=(6, 0), supported=False),))
    plan = plan_device(Config())
    assert plan.devices == ("cpu",)
    assert "sm_60" in plan.reasons["devices"]
    with pytest.raises(ConfigError, match="no usable GPU"):
        plan_device(Config(device="cuda"))


def test_a_missing_gpu_asked_for_is_an_error_that_says_what_to_do(machine):
    machine(BROADWELL, (gpu(0),))
    with pytest.raises(ConfigError, match="device='auto'"):
        plan_device(Config(device="cuda:1"))
    with pytest.raises(ConfigError, match="device takes"):
        plan_device(Config(device="tpu"))


def test_quantization_is_a_switch_that_names_its_price(machine):
    machine(EPYC)
    assert plan_device(Config(quantization="8bit")).engines == ("openvino-int8", "torch-8bit")
    assert plan_device(Config(quantization="4bit")).engines == ("torch-4bit",)
    assert plan_device(Config()).quantization == "none"
    machine(BROADWELL, (gpu(0),))
    assert plan_device(Config(quantization="8bit")).engines == ("torch-8bit",)
    assert plan_device(Config(quantization="8bit", compile=True)).compile is False


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((7, 5), ["sm_70", "sm_75", "sm_90"], True),
        ((8, 9), ["sm_80", "sm_90"], True),
        ((6, 0), ["sm_75", "sm_80"], False),
        ((12, 0), ["sm_80", "compute_90"], True),
        ((7, 0), ["sm_75"], False),
        ((9, 0), ["gfx90a"], True),
    ],
)
def test_kernels_run_on_the_same_major_or_from_older_ptx(capability, built, runs):
    assert device._arch_supported(capability, built) is runs


def test_hidden_gpus_are_not_looked_for(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not device.gpu_may_be_there("auto")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert device.gpu_may_be_there("cuda")
    assert not device.gpu_may_be_there("cpu")


def test_a_cpu_without_known_flags_still_reads_well():
    assert "no vector extensions known" in CpuFacts("CPU", 1).summary()


@pytest.mark.gpu
def test_facts_of_a_real_gpu():
    if not device.gpu_may_be_there("auto") or not device.gpu_facts():
        pytest.skip("no CUDA device here")
    facts = device.gpu_facts()[0]
    assert 0 < facts.free_bytes <= facts.total_bytes
    assert facts.bf16 == (facts.capability >= (8, 0))


def test_few_threads_are_set_and_given_back():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    with few_threads(torch):
        assert torch.get_num_threads() == max(1, usable_cores() // 2)
    with few_threads(torch, 3):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
