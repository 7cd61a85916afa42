"""Which packages are built. Recipes and trained weights lie at the top of a checkout, and inside `uniaudio` once built
(codec/io/shipped.py finds both); all else stands in pyproject.toml."""

from setuptools import find_packages, setup

SHIPPED = {"uniaudio.recipes": "recipes", "uniaudio.assets": "assets"}
ROOMS = ("codec", "lm", "auditory_sentences", "uniaudio", "evaluation", "training", "cli")

setup(
    packages=[*find_packages(include=[pattern for room in ROOMS for pattern in (room, f"{room}.*")]), *SHIPPED],
    package_dir=SHIPPED,
)
