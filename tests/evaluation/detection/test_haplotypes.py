"""Calls are confirmed by the sequence that they spell, however they are written."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.evaluation.detection.haplotypes import confirm
from genoattn.genome.alphabet import encode_bases
from genoattn.genome.assembly_placement import Block
from genoattn.genome.calls import MutationCall, call_of
from genoattn.genome.mutations import apply_mutations
from genoattn.genome.simulate import Rates, simulate

RECORD = encode_bases("ACGTTTTGCA" + "G" * 300 + "CATCATCATG" + "A" * 300 + "TTTTT")


def call(position: int, reference: str, alternate: str) -> MutationCall:
    """A call at a 0-based position of RECORD."""
    difference = len(alternate) - len(reference)
    kind = "insertion" if difference > 0 else "deletion" if difference else "snv" if len(reference) == 1 else "mnv"
    return MutationCall(0, position, reference, alternate, kind, 1.0, 0, 0, 1, False)


@pytest.mark.parametrize(
    ("called", "true", "expected"),
    [
        ([call(0, "A", "G")], [call(0, "A", "G")], ([True], [True])),
        ([call(0, "A", "G")], [call(0, "A", "C")], ([False], [False])),
        ([call(0, "A", "G")], [call(1, "C", "G")], ([False], [False])),
        ([call(2, "GT", "G")], [call(5, "TT", "T")], ([True], [True])),  # the same deletion at two places
        ([call(309, "GCAT", "G")], [call(312, "TCAT", "T")], ([True], [True])),
        ([call(0, "AC", "GT")], [call(0, "A", "G"), call(1, "C", "T")], ([True], [True, True])),
        ([call(2, "GT", "G"), call(25, "G", "T")], [call(5, "TT", "T")], ([True, False], [True])),
        ([call(0, "A", "G")], [call(0, "A", "G"), call(300, "G", "T")], ([True], [True, False])),
        ([call(0, "A", "G"), call(2, "GT", "G")], [call(5, "TT", "T")], ([False, True], [True])),  # too near to part
        ([], [call(0, "A", "G")], ([], [False])),
        ([call(0, "AC", "C")], [call(0, "AC", "C")], ([True], [True])),  # anchored by the base after it
    ],
)
def test_confirmed(
    called: list[MutationCall], true: list[MutationCall], expected: tuple[list[bool], list[bool]]
) -> None:
    assert confirm(called, true, [RECORD]) == expected
    assert confirm(true, called, [RECORD]) == expected[::-1]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.2]))
def test_all_of_one_set_and_what_is_left_of_half_of_it(seed: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    record = rng.integers(0, 2, 400, np.uint8)
    mutations = simulate(record, Rates(rate, 1.0, 1.0, 1.0, 1.0, longest=5), rng)
    sample = apply_mutations(record, mutations)
    whole = Block(0, 0, len(record), 0, 0, len(sample.bases), False, (), 0)
    inserted = [sample.bases[e.start : e.stop if e.kind != "deletion" else e.start] for e in sample.events]
    calls = [call_of(whole, event, record, new, 1.0) for event, new in zip(sample.events, inserted, strict=True)]
    every = confirm(calls, calls, [record])
    assert all(every.called) and all(every.true)
    half = confirm(calls[::2], calls, [record])
    assert all(half.called)
    if rate < 0.1:  # where mutations are dense, other ones of the truth may spell the same
        assert all(half.true[::2])
