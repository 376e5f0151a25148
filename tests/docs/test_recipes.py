"""The recipes of the documentation run, and do what they are for: less spread within the classes, no worse answers."""

import importlib.util
from pathlib import Path

import pytest

RECIPES = sorted((Path(__file__).parents[2] / "docs" / "recipes").glob("*.py"))
NEEDS = {"with_lightning": "lightning", "with_transformers": "transformers", "with_timm": "timm"}


def test_every_recipe_has_a_page():
    assert len(RECIPES) == 4
    for path in RECIPES:
        page = path.with_suffix(".md").read_text()
        assert f"```{{literalinclude}} {path.name}\n" in page
        assert f"recipes/{path.stem}\n" in (path.parents[1] / "recipes.md").read_text()


@pytest.mark.filterwarnings("ignore")  # these libraries warn of each other
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_draws_the_clusters_closer(path, monkeypatch):
    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    model, protected = recipe.train()
    _, plain = recipe.train(weight=0.0)
    assert protected["half_w"] < plain["half_w"] / 2
    assert protected["accuracy"] > max(80, plain["accuracy"] - 2)
    # What is saved and served knows nothing of the loss, but for Lightning, whose module is the training.
    assert any("criterion" in name for name in model.state_dict()) is (path.stem == "with_lightning")
