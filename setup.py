"""The optional C extensions. Where they can't be built their Python twins take over, with the same bytes."""

from pathlib import Path

from setuptools import Extension, setup


def extension(name: str, sources: str) -> Extension:
    folder, pattern = sources.rsplit("/", 1)
    return Extension(
        name,
        sources=sorted(str(path) for path in Path(folder).glob(pattern)),
        depends=sorted(str(path) for path in Path(folder).glob("_*.h")),
        define_macros=[("Py_LIMITED_API", "0x030B0000")],
        extra_compile_args=["-O3"],
        py_limited_api=True,
        optional=True,
    )


setup(
    ext_modules=[
        extension("raptor_s3.codec._kernel", "raptor_s3/codec/_*.c"),
        extension("raptor_s3.wireguard._arena", "raptor_s3/wireguard/_arena.c"),
        extension("raptor_s3.wire._wire", "raptor_s3/wire/_*.c"),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
