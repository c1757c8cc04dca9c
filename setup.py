"""What pyproject.toml cannot say: the repository root is the package, and its rooms are found."""

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

NOT_SHIPPED = ("tests*", "benchmarks*", "examples*", "docs*", "packaging*", "build*")


class BuildRooms(build_py):
    """Leave this file itself out of the package whose folder it lies in."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Return the modules to ship of one package."""
        found = super().find_package_modules(package, package_dir)
        return [module for module in found if module[1] != "setup"]


setup(
    packages=[
        "quietscope",
        *(f"quietscope.{name}" for name in find_packages(".", exclude=NOT_SHIPPED)),
    ],
    cmdclass={"build_py": BuildRooms},
)
