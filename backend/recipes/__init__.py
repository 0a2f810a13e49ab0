"""Recipes: presets in TOML that fill the settings tree."""

from backend.recipes.fill import keeping_topology, painting, settings_for
from backend.recipes.load import load_recipe, recipe_names, shortened

__all__ = ["keeping_topology", "load_recipe", "painting", "recipe_names", "settings_for", "shortened"]
