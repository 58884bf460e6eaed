"""Faults of bundles and machines: a message for each, the same in Python, C and C++, before any engine is touched."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from benchmarks.runtime_faults.faults import FAULTS, Fault
from benchmarks.runtime_faults.run import LANGUAGES, Machine, doubles_of
from edgeformer.ops.library_files import BUILD_COMMAND

# Each case starts three programs.
pytestmark = [pytest.mark.slow, pytest.mark.whole]

ROOT = Path(__file__).resolve().parents[2]
SOUND = {"TensorRT-RTX": Fault("", "", images=8), "TensorRT": Fault("", "", flavour="tensorrt", images=8)}


@pytest.fixture(scope="module")
def machine(runtime_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    doubles = doubles_of(runtime_library)
    if doubles is None:
        pytest.skip(f"the stand-ins for TensorRT and the driver are not built: {BUILD_COMMAND}")
    return Machine(runtime_library, doubles, tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def messages() -> dict[str, str]:
    """What was said of each fault, noted by the test before."""
    return {}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("fault", SOUND.values(), ids=SOUND)
def test_a_sound_bundle_runs(machine: Machine, fault: Fault, language: str) -> None:
    answer = machine.ask(language, machine.plant("sound", fault), fault)
    assert (answer.message, answer.done) == ("ran", ("deserialized", "enqueued"))


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_one_message_in_every_language(machine: Machine, messages: dict[str, str], name: str) -> None:
    fault = FAULTS[name]
    if name == "no driver" and has_driver():
        pytest.skip("this machine has a driver")
    bundle = machine.plant(name, fault)
    answers = {language: machine.ask(language, bundle, fault) for language in LANGUAGES}
    message = answers["c"].message
    assert {answer.message for answer in answers.values()} == {message}
    assert message.startswith(f"{fault.code}: ")
    assert fault.way_out in message
    assert message.count("\n") < 20
    for answer in answers.values():
        assert answer.done == ("deserialized",) * fault.deserialized
    assert message not in messages.values()
    messages[name] = message


def test_fourteen_kinds_are_told_apart() -> None:
    # Four of them are one file's or another's, and have the words to tell them apart: the test above compares messages.
    assert len(FAULTS) == 14
    assert len({fault.code for fault in FAULTS.values()}) == 12


def test_every_code_is_documented() -> None:
    documented = set(re.findall(r"^\| (EF\d+) \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE))
    assert {fault.code for fault in FAULTS.values()} <= documented
