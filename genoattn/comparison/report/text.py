"""A comparison in sentences: what was found, what each figure rests on, how it was made."""

from collections.abc import Mapping

from genoattn.comparison.report.record import layers, lengths, listed, measure, of, runs


def answers(comparison: Mapping) -> list[tuple[str, list[str]]]:
    """By length: a heading, and what is to be said of the layers at it."""
    found = [(length, of(comparison, "verdicts", length)) for length in lengths(comparison)]
    return [(f"{length:,} bases", _sentences(verdict)) for length, verdict in found if verdict]


def _sentences(verdict: Mapping) -> list[str]:
    choice = verdict.get("recommendation") or {}
    said = []
    if choice.get("layer"):
        why = (choice.get("why") or "").removeprefix(f"{choice['layer']}: ")
        said.append(_ended(f"Recommended: {choice['layer']}" + f": {why}" * bool(why)))
    elif choice.get("why"):
        said.append(f"No layer is recommended: {_ended(choice['why'])}")
    if verdict.get("words"):
        said.append(_ended(verdict["words"]))
    if verdict.get("front"):
        said.append(f"On the front of quality and time to read: {listed(verdict['front'])}.")
    return said


def _ended(words: str) -> str:
    return words if words.endswith(".") else f"{words}."


def groups(comparison: Mapping, length: int) -> list[str]:
    """The groups of layers that could be told apart, best first."""
    found = of(comparison, "verdicts", length).get("groups") or []
    return [group[0] if len(group) == 1 else f"{listed(group)} (not told apart)" for group in found]


def basis(comparison: Mapping, stage: str = "final") -> str:
    """What a figure rests on: runs and seeds."""
    each = [(at, layer) for at in lengths(comparison) for layer in layers(comparison)]
    used = [one for at, layer in each for one in runs(comparison, stage, at, layer)]
    if not used:
        return "n and seeds unknown"
    seeds = sorted({one["seed"] for one in used if one.get("seed") is not None})
    word = {"final": "final runs", "sweep": "runs of the sweep"}[stage]
    return f"n = {len(used)} {word}; seeds {listed(seeds)}"


INTERVAL = "95 % interval over seeds and genomic blocks"


NO_INTERVAL = "measured once, no interval"


def budget(found: Mapping) -> str:
    """A budget in words: what is not limited is left out."""
    units = {"steps": "steps", "seconds": "seconds", "bases": "bases"}
    said = [f"{found[key]:,} {unit}" for key, unit in units.items() if found.get(key) is not None]
    return " or ".join(said) or "no limit"


def method(comparison: Mapping) -> list[str]:
    """How the figures were made, in sentences."""
    said = ["Every layer was trained on the same examples, in the same order, for the same budget, in the same frame."]
    if comparison.get("task"):
        said.append(f"Task: {comparison['task']}.")
    if comparison.get("budget"):
        said.append(f"Budget of a final run: {budget(comparison['budget'])}.")
        if comparison["budget"].get("seconds") is not None:
            said.append("Seconds were made into steps by timing every layer beforehand.")
    if comparison.get("learning_rates"):
        given = f" for {budget(comparison['sweep'])}" if comparison.get("sweep") else ""
        said.append(
            f"Learning rates {listed(comparison['learning_rates'])} were tried{given} for each layer and length; "
            "the one with the lowest validation loss was kept, and the test set had no part in it."
        )
    if comparison.get("seeds"):
        said.append(f"The final runs have the seeds {listed(comparison['seeds'])}.")
    if comparison.get("match"):
        said.append(f"Layers were matched in {comparison['match']} by the width of their MLP.")
    said.append(
        f"Quality is {measure(comparison)} ({comparison.get('headline') or 'the headline of the task'}), on a test set "
        "that is the same for all. Its 95 % interval is Student's, of the variances between seeds and over "
        "resamples of genomic blocks, the same blocks for every layer; of a single seed it is of blocks alone."
    )
    said.append(
        "Two layers are told apart where the p-value of their difference (Welch's test over seeds, blocks paired), "
        "corrected for the number of pairs by Holm's method, is at most 0.05. Layers in one group are not told apart; "
        "that does not make them equal. A layer may stand in several groups."
    )
    return said
