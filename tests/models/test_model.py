"""The protocol as a model that Spin checks: all orders of events, where other tests try some.

taskset.pml says what is modelled, and at each variant what is wrong with it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import services

MODEL = Path(__file__).with_name("taskset.pml")

Check = Callable[..., str]

# What breaks the protocol, and the promise that it breaks.
VARIANTS = {
    "NO_GUARD": "EARLY",
    "STATUS_GUARD": "NEWEST",
    "WORKER_GUARD": "NEWEST",
    "CLAIMS_TAKEN_BACK": "NEWEST",
    "COUNT_SENT": "EARLY",
    "READ_THEN_WRITE": "COUNTED",
    "ANY_LEFT": "LOST",
    "COUNT_AFTERWARDS": "LOST",
    "RELEASE_AFTERWARDS": "LOST",
    "UNSEALED_TOO": "EARLY",
    "FINISH_UNGUARDED": "ONCE",
    "RESCUE_UNFENCED": "EARLY",
    "RESCUE_MEMBERS": "LOST",
    "RESCUE_ONCE": "LOST",
    "ADD_UNGUARDED": "FINAL",
    "ADD_LOOKS_FIRST": "FINAL",
    "ADD_COUNTS_AFTERWARDS": "EARLY",
    "REVOKE_UNCOUNTED": "LOST",
    "RETRY_RESETS_CLAIMS": "NEWEST",
    "RETRY_SAME_GENERATION": "LOST",
    "RETRY_REARMS": "LOST",
}
# What a macro in the model may be besides a variant.
PARAMETERS = {"EVENTS", "MEMBERS", "ONLY"}


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Check the model with these macros defined; what the checker says."""
    for program in ("spin", "gcc"):
        if not shutil.which(program):
            absent = f"{program} is not installed, and the model is not checked"
            if services.under_ci():
                pytest.fail(absent, pytrace=False)
            pytest.skip(absent)

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        output = done.stdout + done.stderr
        assert done.returncode == 0, output
        return output

    def check(*macros: str, optimize: str = "-O0") -> str:
        run("spin", *(f"-D{macro}" for macro in macros), "-a", str(MODEL))
        # What is promised is a matter of states, not of cycles.
        run("gcc", optimize, "-w", "-DSAFETY", "-o", "pan", "pan.c")
        return run("./pan", "-w20")

    return check


def test_protocol_holds(check: Check, capsys: pytest.CaptureFixture[str]):
    said = check(optimize="-O1")

    assert "errors: 0" in said, said
    # It would not have looked any further there.
    assert "max search depth too small" not in said
    # A statement that is never come to is one that was not checked.
    unreached = re.findall(r"state \d+, (.+)", said)
    assert set(unreached) == {'"-end-"'}, said
    states = re.search(r"(\d+) states, stored", said)
    assert states is not None, said
    with capsys.disabled():
        print(f"{int(states[1]):,} states ", end="")  # noqa: T201 (how much was looked at)


@pytest.mark.parametrize(("variant", "promise"), VARIANTS.items())
def test_variant_breaks_its_promise(check: Check, variant: str, promise: str):
    said = check(variant, f"ONLY={promise}")

    assert "assertion violated" in said, said
    assert "errors: 1" in said


def test_all_variants_are_checked():
    conditions = re.findall(r"^#(?:el)?if(.+)", MODEL.read_text(), re.MULTILINE)
    named = {name for text in conditions for name in re.findall(r"[A-Z][A-Z_]+", text)}

    assert named - PARAMETERS == set(VARIANTS)
