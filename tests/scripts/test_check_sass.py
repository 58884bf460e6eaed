"""scripts/check_sass.py: the machine code of the library as built, and that the checker sees what it is there for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

# Two kernels for one GPU, in the form that cuobjdump prints.
RESOURCES = """
Fatbin elf code:
================
arch = sm_87
code version = [1,8]
host = linux
compile_size = 64bit

Resource usage:
 Common:
  GLOBAL:0
 Function _Z4MeanIfEvPf:
  REG:40 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:440 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function _ZN1a12_GLOBAL__N_16GatherILi32EEEvNS_9ArgumentsE:
  REG:128 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:440 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
SASS = """
Fatbin elf code:
================
arch = sm_87
code version = [1,8]

	code for sm_87
	.target	sm_87

		Function : _Z4MeanIfEvPf
	.headerflags	@"EF_CUDA_SM87 EF_CUDA_VIRTUAL_SM(EF_CUDA_SM87)"
        /*0000*/                   MOV R1, c[0x0][0x28] ;                           /* 0x00000a0000017a02 */
                                                                                    /* 0x000fe40000000f00 */
        /*0010*/              @!P0 LDG.E R2, [R2.64] ;                              /* 0x0000000402028981 */
        /*0020*/                   EXIT ;                                           /* 0x000000000000794d */
		Function : _ZN1a12_GLOBAL__N_16GatherILi32EEEvNS_9ArgumentsE
        /*0000*/                   LDGSTS.E.BYPASS.128 [R5], [R2.64] ;              /* 0x0000000402057fae */
        /*0010*/                   HMMA.16816.F32 R4, R8, R12, R4 ;                 /* 0x0000000c0804723c */
        /*0020*/               @P1 STG.E.128 [R2.64], R4 ;                          /* 0x0000000402007986 */
        /*0030*/                   EXIT ;                                           /* 0x000000000000794d */
"""


@pytest.fixture
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("check_sass")


@pytest.fixture
def findings(script: ModuleType) -> Callable[[str, str], list[str]]:
    """What is wrong with a library of which cuobjdump says this."""
    rules = (
        script.Rule(r"Mean<.*>", threads=128, blocks=8),
        script.Rule(r"Gather<.*>", threads=128, blocks=4, demands=(script.FP16, script.COPIES, script.VECTOR_STORES)),
    )

    def run(resources: str, sass: str) -> list[str]:
        kernels: dict[tuple[int, str], object] = {}
        script.read_resources(resources.splitlines(), kernels)
        script.read_instructions(sass.splitlines(), kernels)
        problems: list[str] = script.check(script.demangled(kernels), rules)
        return problems

    return run


@pytest.mark.slow
def test_the_library_as_built(script: ModuleType, plugin_library: Path) -> None:
    kernels = script.read_library(plugin_library)
    assert not script.check(kernels)
    # Every architecture that the metadata promises holds every kernel.
    architectures = set(re.findall(r"sm_(\d+)", "\n".join(script.run_tool("--list-elf", plugin_library))))
    assert {sm for sm, _ in kernels} == set(map(int, architectures))
    names = {name for _, name in kernels}
    assert {(sm, name) for sm in map(int, architectures) for name in names} == set(kernels)


def test_kernels_within_their_rules_pass(findings: Callable[[str, str], list[str]]) -> None:
    assert findings(RESOURCES, SASS) == []


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("REG:128 STACK:0", "REG:128 STACK:24", "Gather<32>: 24 bytes of stack memory, none allowed (SM 87)"),
        ("REG:40 STACK:0 SHARED:0 LOCAL:0", "REG:40 STACK:0 SHARED:0 LOCAL:8", "Mean<float>: 8 bytes of local memory"),
        ("MOV R1, c[0x0][0x28] ;", "STL.64 [R1], R4 ;", "Mean<float>: 1 stores to local memory: it spills"),
        ("LDG.E R2, [R2.64] ;", "LDL R2, [R1+0x8] ;", "Mean<float>: 1 loads from local memory: it spills"),
        ("REG:128", "REG:136", "136 registers a thread; at most 128 let 4 blocks of 128 threads share a multi"),
        ("REG:40 STACK:0 SHARED:0", "REG:40 STACK:0 SHARED:16", "16 bytes of static shared memory; the limit is 0"),
        ("HMMA.16816.F32 ", "FFMA ", "Gather<32>: no FP16 tensor-core instruction (HMMA"),
        ("STG.E.128 ", "STG.E ", "Gather<32>: no 16-byte store (STG"),
        ("MOV R1", "HMMA.16816.F32 R1", "Mean<float>: 1 tensor-core instructions where none belong"),
        ("_ZN1a12_GLOBAL__N_16GatherILi32EEEvNS_9ArgumentsE", "_Z5OtherIfEvPf", "Other<float>: no rule covers it"),
        ("_Z4MeanIfEvPf", "_ZN1a12_GLOBAL__N_16GatherILi64EEEvNS_9ArgumentsE", "no kernel matches the rule Mean<.*>"),
        ("  REG:40 STACK:0", "  REGISTERS:40 STACK:0", "Mean<float>: its registers or its instructions are not listed"),
    ],
)
def test_every_fault_is_found(findings: Callable[[str, str], list[str]], old: str, new: str, finding: str) -> None:
    assert old in RESOURCES + SASS
    problems = findings(RESOURCES.replace(old, new), SASS.replace(old, new))
    assert any(finding in problem for problem in problems), problems


def test_before_the_tensor_cores_that_serve_nothing_of_them_is_wanted(
    findings: Callable[[str, str], list[str]],
) -> None:
    resources, sass = (text.replace("sm_87", "sm_75") for text in (RESOURCES, SASS))
    assert findings(resources, sass) == ["Gather<32>: 1 tensor-core instructions where none belong (SM 75)"]
    empty = "".join(line for line in sass.splitlines(keepends=True) if not re.search("HMMA|STG|LDGSTS", line))
    assert findings(resources, empty) == []


def test_shared_memory_that_cuda_keeps_for_itself_does_not_count(findings: Callable[[str, str], list[str]]) -> None:
    resources, sass = (text.replace("sm_87", "sm_90").replace("SHARED:0", "SHARED:1024") for text in (RESOURCES, SASS))
    assert findings(resources, sass) == []


def test_a_library_that_is_not_there(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["check_sass", str(tmp_path / "gone.so")])
    assert script.main() == 1


def test_a_file_that_is_no_library(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.so").write_text("not ELF")
    monkeypatch.setattr("sys.argv", ["check_sass", str(tmp_path / "text.so")])
    assert script.main() == 1
    assert "text.so" in capsys.readouterr().err
