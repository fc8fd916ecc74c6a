"""Build script for tools that still ask for one; everything is declared in ``pyproject.toml``."""

from setuptools import setup

setup()
