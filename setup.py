"""The optional C kernel of the codec: where it can't be built, the numpy twin takes over (raptor_s3.codec.kernel)."""

from pathlib import Path

from setuptools import Extension, setup

SOURCES = sorted(str(path) for path in Path("raptor_s3/codec").glob("_*.c"))

setup(
    ext_modules=[
        Extension(
            "raptor_s3.codec._kernel",
            sources=SOURCES,
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            py_limited_api=True,
            optional=True,
        )
    ]
    if SOURCES
    else [],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
