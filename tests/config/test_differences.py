"""The settings that differ from the defaults: choices first, then what they and the user set."""

import pytest

from genoattn.config.compose import config_of_run
from genoattn.config.differences import differences


@pytest.mark.parametrize(
    ("program", "words", "expected"),
    [
        ("context", ["checkpoint=x", "windows=3"], [("checkpoint", "must be given", "x"), ("windows", "8", "3")]),
        (
            "check-layer",
            ["attention=window", "attention.left=7", "heads.count=2"],
            [
                ("attention", "linear", "window"),
                ("attention.left", "–", "7"),
                ("attention.right", "–", "128"),
                ("heads.count", "4", "2"),
            ],
        ),
        ("detect", ["reference=[a,b]", "truth=null"], [("reference", "must be given", "[a, b]")]),
        ("models", [], []),
    ],
)
def test_differences(program: str, words: list[str], expected: list[tuple[str, str, str]]) -> None:
    config = config_of_run(program, words)
    found = differences(program, config, config.hydra)
    assert [row for row in found if not row.setting.startswith("attention.") or row in expected] == expected
