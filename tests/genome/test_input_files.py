"""Counts of rows are written with their reasons, however many there are."""

from genoattn.genome.input_files import describe_counts


def test_rare_reasons_are_put_together_and_nothing_is_lost() -> None:
    assert describe_counts({}) == "" and describe_counts({"no ALT": 0}) == ""
    assert describe_counts({"no ALT": 1, "breakend": 1_234}) == "1,234 breakend, 1 no ALT"
    text = describe_counts({f"labelled {number}": number for number in range(1, 21)})
    assert text.startswith("20 labelled 20, 19 labelled 19, ") and text.endswith(", 15 for 5 other reasons")
