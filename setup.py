"""What ``pyproject.toml`` can't declare: the compiled passes of small networks.

Where there is no C compiler they are left out, and NumPy does the same.
"""

import os

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "agilerl.networks._mlp",
            ["agilerl/networks/_mlp.c"],
            extra_compile_args=["-O3"],
            libraries=[] if os.name == "nt" else ["m"],
            optional=True,
        )
    ]
)
