"""The shape of the project: which room may import which, where libraries are known, and what is public."""

import ast
import importlib
import inspect
from pathlib import Path
from typing import get_args

import pytest
from public_names import GROUPS, PUBLIC

import laser_interp as li
from laser_interp import choices
from laser_interp.edits.controls import CONTROLS
from laser_interp.plots.registry import FIGURES

PACKAGE = Path(li.__file__).parent
ROOT = PACKAGE.parent

# Of TransformerLens and transformers, what is used beyond their documentation, and what for
RELIED_ON = {
    "transformer_lens.model_bridge.sources._bridge_builder.build_bridge_from_module": (
        "wraps a module that is loaded already: no hub, no conversion to float32"
    ),
    "transformer_lens.model_bridge.generalized_components.normalization.NormalizationBridge": (
        "finds the norms, whose original module computes the same in one step"
    ),
    "transformers.activations.NewGELUActivation": "finds GPT-2's activation, which torch computes in one step",
    "transformers.initialization.no_init_weights": "makes a model without drawing weights that are replaced at once",
    "transformers.modeling_gguf_pytorch_utils.load_gguf_checkpoint": (
        "takes gguf's reader and its names of tensors when it is called, so that both can be kept between calls"
    ),
    "transformers.pytorch_utils.Conv1D": "tells whether a weight is stored as [d_in, d_out] or transposed",
    "bridge.blocks.0.mlp.out.original_component": "the linear map itself, with its weight and bias",
    "bridge.blocks.0.submodules": "the parts of a block, its norms among them",
    "bridge.original_model": "the transformers model, for generation and saving",
    "bridge.hook_dict": "the names of all hooks",
    "bridge.list_hooks": "which hooks are attached",
    "bridge.unembed.original_component": "the linear map itself, with its weight and bias",
    "bridge.unembed.hook_in.add_hook": "attaches a function to a hook",
    "bridge.unembed.hook_in.fwd_hooks": "the functions that are attached to a hook",
    "bridge.compatibility_mode": "whether weights were folded into each other",
    "bridge.tokenizer": "what the bridge's own calls tokenise with",
    "bridge.cfg.default_prepend_bos": "whether the bridge's own calls put a token before every text",
    "bridge.cfg.tokenizer_prepends_bos": "whether the tokenizer puts that token there by itself",
    "bridge.cfg.model_name": "the name of a bridge that the caller gives",
    "bridge.cfg.n_layers": "sizes",
    "bridge.cfg.n_heads": "sizes",
    "bridge.cfg.architecture": "the class of the transformers model",
}

# A room imports rooms above it only. Those in one row do not import each other.
ROOMS = [
    {"choices", "cluster_intervals", "extras", "progress", "signatures"},
    {"plots", "storage"},
    {"display", "facts", "parallel"},
    {"statistics"},
    {"models"},
    {"organism", "edits"},
    {"frequency", "scoring"},
    {"discarded"},
    {"selection"},
    {"studies", "verification", "lm_eval"},
    {"report"},
    {"controls", "counts", "tasks", "types"},
    {"cli"},
    {"__main__"},
]
RANK = {name: i for i, row in enumerate(ROOMS) for name in row}
# Only these may know the libraries that run models.
MODEL_LIBRARIES = {"transformer_lens", "transformers"}
TRAINS = {"organism/training.py"}  # makes a model of its own with transformers


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE), ast.parse(path.read_text(encoding="utf-8"))


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            yield node.module
            if node.module == "laser_interp":
                yield from (f"laser_interp.{alias.name}" for alias in node.names)


def room(path):
    return path.parts[0].removesuffix(".py")


def test_every_room_has_a_place():
    assert {room(path) for path, _ in modules()} - {"__init__"} == set(RANK)


def test_no_room_imports_backwards():
    for path, tree in modules():
        own = room(path)
        for target in imported(tree):
            parts = target.split(".")
            if parts[0] == "laser_interp" and len(parts) > 1 and parts[1] in RANK and parts[1] != own:
                assert RANK[parts[1]] < RANK[own], f"{path} imports {target}"


def test_modules_of_a_room_form_no_circle():
    edges = {}
    for path, tree in modules():
        name = ".".join(("laser_interp", *path.with_suffix("").parts)).removesuffix(".__init__")
        edges[name] = {target for node in tree.body for target in imported(ast.Module([node], []))}
    done, open_ = set(), []

    def visit(name):
        assert name not in open_, " -> ".join([*open_[open_.index(name) :], name])
        if name in done or name not in edges:
            return
        open_.append(name)
        for target in sorted(edges[name] - {name}):
            visit(target)
        done.add(open_.pop())

    for name in edges:
        visit(name)


@pytest.mark.slow
def test_model_libraries_are_known_in_one_room():
    users = {path.as_posix() for path, tree in modules() if MODEL_LIBRARIES & {t.split(".")[0] for t in imported(tree)}}
    assert {user for user in users if not user.startswith("models/")} <= TRAINS
    for path, tree in modules():
        if room(path) != "models":
            touched = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            assert not touched & {"bridge", "original_component", "_state"}, path


@pytest.mark.parametrize("path", RELIED_ON)
def test_what_is_relied_on_in_libraries_is_there(path, organism):
    """Names that the libraries do not promise: where an upgrade moves one, this says so first."""
    first, *names = path.split(".")
    if first == "bridge":
        found = organism.bridge
    else:
        module, names = path.rpartition(".")[0], [path.rpartition(".")[2]]
        found = importlib.import_module(module)
    for name in names:
        found = found[int(name)] if name.isdigit() else getattr(found, name)


def test_the_one_entry_into_transformer_lens_takes_what_it_is_given():
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    assert {"model", "architecture", "hf_config"} <= set(inspect.signature(build_bridge_from_module).parameters)


@pytest.mark.slow
def test_no_pickles():
    for path, tree in modules():
        assert not {"pickle", "joblib", "dill"} & {t.split(".")[0] for t in imported(tree)}, path
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not calls & {"torch.load", "torch.save"}, path


def test_public_names_are_what_dir_shows_and_are_documented():
    assert dir(li) == sorted(dir(li))
    assert set(dir(li)) == set(li.__all__)
    assert len(li.__all__) <= 60
    for name, value in PUBLIC.items():
        assert value.__doc__, name
        if inspect.isfunction(value) or inspect.isclass(value):
            assert value.__module__.startswith("laser_interp."), name


def test_a_name_of_a_group_is_found():
    with pytest.raises(AttributeError, match=r"^li\.random_kept is li\.controls\.random_kept$"):
        _ = li.random_kept
    with pytest.raises(AttributeError, match=r"^li\.accuracy is li\.plots\.accuracy$"):
        _ = li.accuracy
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = li.no_such_name
    assert sorted(GROUPS) == sorted(li._GROUPS)
    assert not hasattr(li, "__wrapped__")


def test_no_module_is_called_like_a_public_function():
    """`laser_interp.frequency.count` would be two things."""
    functions = {name.rpartition(".")[2] for name, value in PUBLIC.items() if inspect.isfunction(value)}
    stems = {path.stem for path, _ in modules() if room(path) != "cli"}
    assert not functions & stems


def test_a_model_shows_what_a_user_needs():
    shown = [name for name in dir(li.Model) if not name.startswith("_")]
    assert len(shown) <= 30, shown


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_types(name):
    value = PUBLIC[name]
    if inspect.isfunction(value):
        hints = inspect.signature(value)
        assert hints.return_annotation is not inspect.Signature.empty
        for parameter in hints.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty, parameter


def test_the_registry_of_controls_is_the_list_of_their_names():
    assert set(get_args(choices.ControlName)) == set(CONTROLS)


def test_every_figure_is_a_public_plot():
    assert all(callable(getattr(li.plots, name)) for name in FIGURES)


def test_every_module_says_what_it_is():
    for path, tree in modules():
        assert path.name == "__init__.py" or ast.get_docstring(tree), path


def test_tests_mirror_the_rooms():
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= {*RANK, "project", "golden"}
