"""The learning rate as a pure function of the step: there is no scheduler state to save."""

from __future__ import annotations

import math

from training.recipe import OptimiserRecipe


def learning_rate(recipe: OptimiserRecipe, step: int, total_steps: int) -> float:
    """Learning rate of an update.

    Linear from lr / warmup_steps to lr over the warm-up, then a half cosine down to final_lr x lr at the last step, or
    constant.

    Args:
        recipe: peak, warm-up and schedule.
        step: of the update, from 1.
        total_steps: of the run.
    """
    if step < recipe.warmup_steps:
        return recipe.lr * step / recipe.warmup_steps
    if recipe.schedule == "constant":
        return recipe.lr
    progress = (step - recipe.warmup_steps) / max(1, total_steps - recipe.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return recipe.lr * (recipe.final_lr + (1 - recipe.final_lr) * cosine)
