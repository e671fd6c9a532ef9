"""Metrics and replicates: keys of four parts, and files that come back as they were written."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from genoattn.evaluation.metrics import MetricKey, Metrics, Replicates, Subgroup

AUPRC = MetricKey("model", "test", "all", "auprc")
METRICS = Metrics(
    {AUPRC: 0.5, AUPRC._replace(subset="snv"): np.float64("nan"), AUPRC._replace(candidate="aligner"): 0.25},
    {"parameters": 7, "train_seconds": 1.5},
)


def test_a_key_is_written_in_four_parts():
    assert str(AUPRC) == "model/test/all/auprc" and MetricKey.parse("model/test/all/auprc") == AUPRC
    with pytest.raises(ValueError, match="unpack"):
        MetricKey.parse("test/auprc")


def test_metrics_are_a_mapping_that_can_be_added_and_selected():
    assert METRICS[AUPRC] == 0.5 and len(METRICS) == 3 and AUPRC in METRICS
    assert set(METRICS.select(candidate="model")) == {AUPRC, AUPRC._replace(subset="snv")}
    assert set(METRICS.select(subset="all", metric="auprc")) == {AUPRC, AUPRC._replace(candidate="aligner")}
    whole = METRICS + Metrics({AUPRC: 0.75}, {"tokens": 3})
    assert whole[AUPRC] == 0.75 and whole.costs == {"parameters": 7, "train_seconds": 1.5, "tokens": 3}


def test_metrics_json_is_plain_and_comes_back(tmp_path: Path):
    METRICS.write(tmp_path)
    plain = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert plain["model/test/all/auprc"] == 0.5 and plain["model/test/snv/auprc"] is None
    assert plain["cost/parameters"] == 7
    assert Metrics.read(tmp_path).to_json() == METRICS.to_json() == plain
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_metrics_json_is_written_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Metrics({AUPRC: 1}).write(tmp_path)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        METRICS.write(tmp_path)
    assert Metrics.read(tmp_path) == Metrics({AUPRC: 1})


def test_bootstrap_json_comes_back(tmp_path: Path):
    group = Subgroup("distance", "64–128", "snv", 64, 128, 12, math.nan, (0.5, math.nan))
    Replicates(AUPRC, {AUPRC: (0.1, math.nan, 0.3)}, [group]).write(tmp_path)
    plain = json.loads((tmp_path / "bootstrap.json").read_text(), parse_constant=pytest.fail)
    assert plain["primary_metric"] == "model/test/all/auprc"
    assert plain["replicates"] == {"model/test/all/auprc": [0.1, None, 0.3]}
    assert plain["subgroups"][0]["replicates"] == [0.5, None] and plain["subgroups"][0]["value"] is None
    read = Replicates.read(tmp_path)
    assert read.primary_metric == AUPRC and repr(read.replicates[AUPRC]) == repr((0.1, math.nan, 0.3))
    assert repr(read.subgroups) == repr([group])
