"""The program `genoattn models`: the trained models that come with the package."""

from omegaconf import DictConfig

from genoattn.evaluation.report import Table
from genoattn.models.shipped import shipped_models


def main(config: DictConfig) -> None:
    """Print the models, what they are for and how they were made."""
    models = shipped_models()
    rows = [
        [model.name, model.purpose, model.card.name, f"{model.card.length:,}", f"{model.size / 1000:,.0f} kB"]
        for model in models
    ]
    columns = ("checkpoint", "purpose", "attention", "window, bases", "size")
    Table("Models that come with genoattn", columns, rows, texts=3).print()
    for model in models:
        print(f"\n{model.name}: {model.measured}\n  made by: {model.command}\n  folder: {model.folder}")
