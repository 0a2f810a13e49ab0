"""Recipes: presets in TOML that fill the settings tree."""

from backend.recipes.load import load_recipe, recipe_names, shortened

__all__ = ["load_recipe", "recipe_names", "shortened"]
