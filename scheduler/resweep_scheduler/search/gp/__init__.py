"""A light Gaussian process that proposes points, on NumPy alone.

    axes.py         the space: numbers, steps, categories, conditions, and the distance of two points
    values.py       outcomes as the model sees them: normal in shape; which ones it learns from
    kernel.py       Matern 5/2 with a length scale for each axis, and the search for its hyperparameters
    acquisition.py  the logarithm of the expected improvement, with open points as the model believes them
    minimise.py     several local minimisations side by side
    engine.py       all of it: known points, open points, a seed -> candidates, best first
    rows.py         latent points of a search space as rows of the model, and back
    sampler.py      the same as a sampler of Optuna; the only module that imports Optuna

Answers follow from the arguments alone; the caches change nothing but the time.
"""
