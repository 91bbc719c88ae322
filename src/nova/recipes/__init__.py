"""Recipes: functions that return a complete run configuration; `nova.recipes.catalogue` names them."""
