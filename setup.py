"""What pyproject.toml cannot say: the repository root is the package, and its rooms are found."""

from setuptools import find_packages, setup

NOT_SHIPPED = ("tests*", "benchmarks*", "examples*", "docs*", "packaging*", "build*")

setup(
    packages=[
        "quietscope",
        *(f"quietscope.{name}" for name in find_packages(".", exclude=NOT_SHIPPED)),
    ]
)
