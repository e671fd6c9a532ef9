"""`genoattn check-layer` names the checks that a layer of another package fails; its exit status says the same."""

import re
import subprocess
import sys

import pytest

from genoattn.attention.conformance import CHECKS, CheckResult
from genoattn.cli.check_layer import table
from genoattn.cli.main import main

FAULTS = {
    "padding ignored": ("padding invariance", "return self.inner(x)"),
    "reach off by one": ("receptive field", "return self.wider(x, layout)"),
    "causality dropped": ("causality", "return self.both(x, layout)"),
    "unnormalised": ("weights sum to one", "return 3 * self.inner(x, layout)"),
    "a crash": ("any length", "raise ValueError('no such length')"),
    "sound": (None, "return self.inner(x, layout)"),
}
SLOW = ("learns", "declared_cost")
LAYER = """
from genoattn.attention.base import Attention, TokenLayout
from genoattn.attention.window import WindowAttention

class Mine(Attention):
    complexity = "linear"

    def __init__(self, dim: int, causal: bool, left: int = 4):
        super().__init__()
        self.inner = WindowAttention(dim, causal, left=left, right=20)
        self.wider = WindowAttention(dim, causal, left=left + 1, right=20)
        self.both = WindowAttention(dim, False, left=left, right=20)
        self.wider.heads = self.both.heads = self.inner.heads
        self.causal, self.weights_sum_to_one = causal, True
        self.receptive_field, self.asymmetry = self.inner.receptive_field, self.inner.asymmetry

    def forward(self, x, layout=TokenLayout()):
        {answer}

    def naive(self, x, layout=TokenLayout()):
        {same}

    def flops(self, length):
        return self.inner.flops(length)

    def state_bytes(self, length):
        return self.inner.state_bytes(length)
"""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_the_reference_shares_is_named(fault, tmp_path, monkeypatch, capsys):
    check, answer = FAULTS[fault]
    module = f"mine_{fault.replace(' ', '_')}"
    # The same mistake is in the reference, so that only a check that is independent of it can find it.
    (tmp_path / f"{module}.py").write_text(LAYER.format(answer=answer, same=answer))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    if check is not None:  # the slowest checks, which find none of these faults, run on the sound layer
        for slow in SLOW:
            monkeypatch.delitem(CHECKS, slow)
    words = ["check-layer", "attention=none", f"attention._target_={module}.Mine", "+attention.left=20"]
    status = main([*words, f"hydra.run.dir={tmp_path / 'run'}"])
    output = capsys.readouterr().out
    assert status == (0 if check is None else 1), output
    assert ("every check passed" in output) == (check is None)
    failed = [line for line in output.splitlines() if "FAILED" in line]
    assert check is None or any(check in line for line in failed), output
    assert check == "any length" or all("matches naive" not in line for line in failed)


def test_a_warning_is_no_failure():
    results = [
        CheckResult("matches naive", True, "0", "mistakes", "it compares nothing"),
        CheckResult("learns", False, "1", "x"),
    ]
    marks, texts = ([str(cell) for cell in table("mine", results).columns[at].cells] for at in (1, 2))
    assert ["warning" in marks[0], "FAILED" in marks[1]] == [True, True]
    assert texts == ["0; it compares nothing", "1; catches x"]


def test_each_kind_of_a_hybrid_is_checked_once(tmp_path, capsys):
    words = ["attention=hybrid", "attention.layers=[conv,none,conv]"]
    status = main(["check-layer", *words, f"hydra.run.dir={tmp_path}"])
    output = capsys.readouterr().out
    assert status == 1, "none learns nothing"
    assert "layer 0" in output and "layer 1" in output and "layer 2" not in output


@pytest.mark.parametrize("program", ["check-layer", "train"])
@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("dim: int, causal: bool,", "dim: int,", "the constructor of {layer} must take causal, which the model"),
        (
            "def state_bytes",
            "def bytes",
            "{layer} lacks state_bytes, which its base class requires",
        ),
        ('complexity = "linear"', "", "{layer} must set complexity, see genoattn.attention.base.Attention"),
        ("self.weights_sum_to_one =", "self.sums =", "{layer} must set weights_sum_to_one, see genoattn.attention."),
        ("class Mine(Attention)", "class Mine(__import__('torch').nn.Module)", "{layer} is no attention layer: "),
    ],
)
def test_a_layer_that_lacks_something_of_the_contract_is_one_sentence(
    program, old, new, sentence, tmp_path, monkeypatch, capsys
):
    module = "lacks_" + re.sub(r"\W", "_", old)
    text = LAYER.format(answer="return x", same="return x")
    assert old in text
    (tmp_path / f"{module}.py").write_text(text.replace(old, new))
    monkeypatch.syspath_prepend(tmp_path)
    words = ["attention=none", f"attention._target_={module}.Mine", f"hydra.run.dir={tmp_path / 'run'}"]
    assert main([program, *words, *(["experiment=smoke", "trainer.threads=1"] if program == "train" else [])]) == 2
    error = capsys.readouterr().err
    assert sentence.format(layer=f"{module}.Mine") in error
    assert error.count("\n") == 1


def test_the_table_fits_into_100_columns_of_a_file(tmp_path):
    command = [sys.executable, "-m", "genoattn", "check-layer", "attention=full", f"hydra.run.dir={tmp_path}"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert max(map(len, ended.stdout.splitlines())) <= 100
    assert "FLOPs" in ended.stdout or "flops" in ended.stdout
