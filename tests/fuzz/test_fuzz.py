"""A fixed share of the inputs of `make fuzz`."""

from pathlib import Path

import pytest

from tests.fuzz.trials import KINDS, try_inputs

SHARE = {"fasta": 400, "vcf": 200, "bed": 100, "tsv": 100, "model": 40, "overrides": 18, "vcf_rows": 100}
SHARE |= {"gff": 100, "indexes": 100}


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_are_read_right_or_refused_in_a_sentence(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENOATTN_CACHE", str(tmp_path))
    _, outcomes, faults = try_inputs(kind, range(SHARE[kind]), 1, tmp_path)
    assert not faults, "\n".join(f"{fault.kind} {fault.number}: {fault.error}" for fault in faults[:3])
    assert outcomes["refused"] > 0 and outcomes.total() == SHARE[kind] > outcomes["refused"]
