"""What ``pyproject.toml`` can't declare: passes of small networks and parts of learning, compiled.

Where there is no C compiler they are left out, and NumPy does the same.
"""

import os

from setuptools import Extension, setup


def compiled(name: str) -> Extension:
    """Return the extension module ``name``, whose source has its name."""
    return Extension(
        name,
        [name.replace(".", "/") + ".c"],
        depends=["agilerl/_arrays.h"],
        extra_compile_args=["-O3", "-fno-math-errno"],
        libraries=[] if os.name == "nt" else ["m"],
        optional=True,
    )


setup(ext_modules=[compiled("agilerl._learning"), compiled("agilerl._mlp")])
