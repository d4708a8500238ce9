"""Recipes and plate layouts: data, packaged so that an installed platemint finds them."""
