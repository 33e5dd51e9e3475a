"""Networks for images by name, and the recipes that train them."""

from tinytorch.models.convnets import DigitsCNN, MNISTConvNet
from tinytorch.models.mlp import MLP
from tinytorch.models.recipes import RECIPES, Recipe, recipe
from tinytorch.models.registry import create, names

__all__ = ["MLP", "RECIPES", "DigitsCNN", "MNISTConvNet", "Recipe", "create", "names", "recipe"]
