"""How networks are trained: short TOML files, one for each data set and one for each record, and what they mean."""

from tinytorch.recipes.files import load, names, of_dataset, text
from tinytorch.recipes.recipe import Recipe

__all__ = ["Recipe", "load", "names", "of_dataset", "text"]
