"""The rooms of the house: no import runs upward, and no two machine packages import each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "numerics": set(),
    "hwsim": {"numerics"},
    "accelerators": {"hwsim", "numerics"},
    "neuromorphic": {"hwsim", "numerics"},
    "photonic": {"hwsim", "numerics"},
    "rtl": {"hwsim", "numerics", "accelerators", "neuromorphic", "photonic"},
}


def imported_packages(tree: ast.AST) -> set[str]:
    """Top-level packages named by any import in the file, inside functions and type-checking blocks included."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(str(node.module).partition(".")[0])
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_downward_only(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        ours = imported_packages(ast.parse(file.read_text(encoding="utf-8"))) & set(MAY_IMPORT)
        assert ours <= MAY_IMPORT[package] | {package}, file


def test_every_package_is_listed_and_typed():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = {pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert listed == set(MAY_IMPORT)
    for package in MAY_IMPORT:
        assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_no_module_bears_the_name_of_a_public_function(package):
    """``import package.thing`` would hide a function of that name."""
    text = (ROOT / package / "__init__.py").read_text(encoding="utf-8")
    public = {
        element.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "__all__" for t in node.targets)
        for element in getattr(node.value, "elts", [])
    }
    modules = {p.stem for p in (ROOT / package).glob("*.py")} | {p.name for p in (ROOT / package).iterdir() if p.is_dir()}
    assert not (public - {"explore", "zoo"}) & modules
