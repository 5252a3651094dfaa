"""What `check` says of repositories that break the contract; none of their code runs."""

from __future__ import annotations

import json
import os

import pytest

from tests.flops.conftest import DATA, MODEL, command

from umbel.flops import contract
from umbel.flops.words import Failed

SKLEARN_STYLE = MODEL.replace(
    "class ModelManager:",
    "from flops_utils.ml_repo_templates import ModelManagerTemplate\n"
    "class ModelManager(ModelManagerTemplate):",
)


def faults(repository, flavor=None) -> list[str]:
    with pytest.raises(Failed) as failed:
        contract.check(repository, flavor)
    return failed.value.all


@pytest.mark.parametrize("model", [MODEL, SKLEARN_STYLE])
def test_a_sound_repository(make_repository, model):
    found = contract.check(make_repository(model), "sklearn")
    assert [r.text for r in found.requirements] == ["numpy"]


@pytest.mark.parametrize("name", ["fashion-mnist-sklearn", "fashion-mnist-keras"])
def test_the_examples(repo, name):
    contract.check(repo / "examples" / "ml-repos" / name, name.rpartition("-")[2])


def edited(old, new):
    assert old in MODEL
    return MODEL.replace(old, new)


BROKEN = {
    "no model_manager.py": ({"model": None}, "model_manager.py is missing"),
    "no data_manager.py": ({"data": None}, "data_manager.py is missing"),
    "no conda.yaml": ({"conda": None}, "conda.yaml is missing"),
    "empty": ({"model": ""}, "model_manager.py has no class ModelManager"),
    "syntax": ({"model": "x = 1\ndef (:\n"}, "model_manager.py, line 2: invalid syntax"),
    "indentation": ({"data": "class A:\npass"}, "data_manager.py, line 2: expected an indented"),
    "zero byte": ({"model": "x = 1\0"}, "model_manager.py"),
    "too deep": ({"model": "(" * 5000 + ")" * 5000}, "model_manager.py"),
    "not UTF-8": ({"model": b"# caf\xe9\n"}, "model_manager.py, line 1: not UTF-8"),
    "UTF-16": ({"data": "class DataManager: pass".encode("utf-16")}, "not UTF-8"),
    "too large": ({"model": "#" * (1 << 20) + MODEL}, "at most 1048576 are read"),
    "no class": ({"model": edited("class ModelManager", "class Manager")},
        "model_manager.py has no class ModelManager"),
    "class in a function": ({"model": "def f():\n    class ModelManager: pass\n"},
        "model_manager.py has no class ModelManager"),
    "no DataManager": ({"data": "def load(): pass"}, "data_manager.py has no class DataManager"),
    "no fit_model": ({"model": edited("fit_model", "fit")},
        "model_manager.py, line 5: class ModelManager has no method fit_model; "
        "add `def fit_model(self) -> int`"),
    "no get_data": ({"data": DATA.replace("get_data", "data")},
        "class DataManager has no method get_data"),
    "fit_model wants more": ({"model": edited("fit_model(self)", "fit_model(self, epochs)")},
        "model_manager.py, line 16: ModelManager.fit_model takes 1 argument besides self; "
        "it is called with 0"),
    "set_model_parameters takes none": (
        {"model": edited("set_model_parameters(self, parameters)", "set_model_parameters(self)")},
        "ModelManager.set_model_parameters takes 0 arguments besides self; it is called with 1"),
    "no self": ({"model": edited("fit_model(self)", "fit_model()")}, "lacks the argument self"),
    "keyword only": ({"model": edited("fit_model(self)", "fit_model(self, *, epochs)")},
        "ModelManager.fit_model needs the keyword epochs"),
    "__init__ wants more": ({"model": edited("__init__(self)", "__init__(self, path)")},
        "ModelManager.__init__ takes 1 argument besides self"),
    "async": ({"model": edited("def fit_model", "async def fit_model")},
        "ModelManager.fit_model is `async def`"),
    "base without the method": (
        {"model": edited("class ModelManager:", "class Base: pass\nclass ModelManager(Base):")
            .replace("fit_model", "fit")}, "has no method fit_model"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_is_named(name, make_repository):
    given, expected = BROKEN[name]
    found = faults(make_repository(**given))
    assert len(found) == 1, found
    assert expected in found[0]
    assert "\n" not in found[0]


SOUND = {
    "defaults": edited("fit_model(self)", "fit_model(self, epochs=1, *, rate=0.1)"),
    "any arguments": edited("fit_model(self)", "fit_model(*args, **kwargs)"),
    "a static method": edited("def fit_model(self)", "@staticmethod\n    def fit_model()"),
    "assigned": edited("    def fit_model", "    fit_model = len\n    def fitted"),
    "inherited": edited("class ModelManager:", "class Base:").replace("\n\n", "\n", 1)
    + "\nclass ModelManager(Base): pass\n",
    "from elsewhere": edited("class ModelManager:", "from b import B\nclass ModelManager(B):")
    .replace("fit_model", "fit"),
    "imported": "from data_manager import DataManager as ModelManager",
    "in a branch": "try:\n    import torch\nfinally:\n"
    + "\n".join("    " + line for line in MODEL.splitlines()),
    "BOM": "\ufeff" + MODEL,
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_what_is_not_wrong(name, make_repository):
    contract.check(make_repository(SOUND[name]))


def test_no_data_manager_is_needed_where_none_is_imported(make_repository):
    contract.check(make_repository(MODEL.replace("from data_manager", "from other"), data=None))


def test_every_fault_is_told(make_repository, tmp_path):
    conda = "dependencies:\n  - cudatoolkit\n"
    repository = make_repository(None, "class DataManager: pass", conda)
    out = tmp_path / "out.json"
    done = command("check", "--source", repository, "--out", out)
    assert done.returncode == 1
    result = json.loads(out.read_text())
    assert len(result["errors"]) == 4
    assert result["error"].startswith("model_manager.py is missing")
    assert "(and 3 more: see the log)" in result["error"]
    for sentence in result["errors"]:
        assert f"error: {sentence}" in done.stdout


def test_links_out_of_the_repository(make_repository, tmp_path):
    (tmp_path / "secret.py").write_text(MODEL)
    repository = make_repository(None)
    (repository / "model_manager.py").symlink_to(tmp_path / "secret.py")
    assert faults(repository) == ["model_manager.py is not a file of the repository"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_no_file(make_repository):
    repository = make_repository(None)
    os.mkfifo(repository / "model_manager.py")
    assert faults(repository) == ["model_manager.py is not a file of the repository"]


def test_no_folder(tmp_path):
    assert faults(tmp_path / "none")[0].endswith("is no folder")


@pytest.mark.parametrize("flavor", ["pytorch", "keras", "tensorflow"])
def test_the_flavor_is_listed(make_repository, flavor):
    found = faults(make_repository(), flavor)
    assert found[0].startswith(f"conda.yaml does not list what the flavor {flavor} needs")


def test_none_of_it_runs(make_repository, tmp_path):
    mark = tmp_path / "mark"
    text = f"open({str(mark)!r}, 'w')\n"
    out = tmp_path / "out.json"
    repository = make_repository(text + MODEL, text + DATA, files={"yaml.py": text, "ast.py": text})
    done = command("check", "--source", repository, "--out", out)
    assert done.returncode == 0, done.stdout
    assert json.loads(out.read_text())["requirements"] == ["numpy"]
    assert not mark.exists()
