"""`genoattn doctor` names the laws that a layer from outside the package breaks, and says so by its exit status."""

import sys

import pytest

from genoattn.cli.main import main

FAULTS = {
    "padding ignored": ("padding invariance", "return self.inner(x)"),
    "reach off by one": ("receptive field", "return self.wider(x, layout)"),
    "causality dropped": ("causality", "return self.both(x, layout)"),
    "unnormalised": ("weights sum to one", "return 3 * self.inner(x, layout)"),
    "a crash": ("any length", "raise ValueError('no such length')"),
    "sound": (None, "return self.inner(x, layout)"),
}
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
def test_doctor_names_a_planted_fault_in_both_forms(fault, tmp_path, monkeypatch, capsys):
    law, answer = FAULTS[fault]
    module = f"mine_{fault.replace(' ', '_')}"
    # The same mistake is in the reference, so that only a law that is independent of it can tell.
    (tmp_path / f"{module}.py").write_text(LAYER.format(answer=answer, same=answer))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["genoattn"])
    words = ["doctor", "attention=none", f"attention._target_={module}.Mine", "+attention.left=20"]
    status = main([*words, f"hydra.run.dir={tmp_path / 'run'}"])
    said = capsys.readouterr().out
    assert status == (0 if law is None else 1), said
    assert ("every law holds" in said) == (law is None)
    broken = [line for line in said.splitlines() if "broken" in line]
    assert law is None or any(law in line for line in broken), said
    assert law == "any length" or all("matches naive" not in line for line in broken)


def test_doctor_examines_each_kind_of_a_hybrid(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["genoattn"])
    status = main(["doctor", "attention=hybrid", "attention.layers=[conv,none,conv]", f"hydra.run.dir={tmp_path}"])
    said = capsys.readouterr().out
    assert status == 1, "none learns nothing"
    assert "layer 0" in said and "layer 1" in said and "layer 2" not in said
