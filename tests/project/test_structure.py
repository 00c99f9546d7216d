"""The shape of the project: which module may import which, and where libraries are known."""

import ast
from pathlib import Path

import laser_interp

PACKAGE = Path(laser_interp.__file__).parent

# Left imports nothing to its right. Modules in one group do not import each other.
ORDER = [
    {"facts", "results", "plots"},
    {"association"},
    {"model", "organism.corpus"},
    {"sites", "organism.train", "organism", "datasets.sources"},
    {"datasets"},
    {"spectrum"},
    {"edit"},
    {"engine"},
    {"score", "reading"},
    {"grid"},
    {"cluster"},
    {"sweep", "decode", "attribution", "frequency.names"},
    {"frequency.corpus"},
    {"frequency.scan"},
    {"frequency.index", "frequency.infinigram", "frequency.given", "frequency.generic"},
    {"frequency"},
    {"compose", "judge"},
    {"evaluate"},
    {"study", "compress", "report", "panel"},
    {"reproduce"},
    {"cli"},
    {"__main__"},
]
RANK = {name: i for i, group in enumerate(ORDER) for name in group}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            yield name, ast.parse(path.read_text())


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_module_imports_backwards():
    for name, tree in modules():
        for target in imported(tree):
            inner = target.removeprefix("laser_interp.")
            if target.startswith("laser_interp.") and inner in RANK:
                assert RANK[inner] < RANK[name], f"{name} imports {inner}"


def test_every_module_has_a_place():
    assert {name for name, _ in modules()} == set(RANK)


def test_transformer_lens_is_known_in_one_module():
    users = {name for name, tree in modules() if any(t.split(".")[0] == "transformer_lens" for t in imported(tree))}
    assert users == {"model"}


def test_the_private_entry_into_transformer_lens_is_there():
    """`load_model` relies on it: if an upgrade moves it, this says so first."""
    import inspect

    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    assert {"model", "architecture", "hf_config"} <= set(inspect.signature(build_bridge_from_module).parameters)


def test_no_pickles():
    for name, tree in modules():
        assert not {"pickle", "joblib", "dill"} & {t.split(".")[0] for t in imported(tree)}, name
        calls = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
        assert not calls & {"torch.load", "torch.save"}, name


def test_public_names_are_documented():
    for name in laser_interp.__all__:
        value = getattr(laser_interp, name)
        assert name == "RHOS" or value.__doc__, name
