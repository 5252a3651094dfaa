"""conda.yaml, translated: what each form becomes, and what is refused with its line."""

from __future__ import annotations

import random

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.flops import conftest  # noqa: F401  (puts umbel.flops on the path)

from umbel.flops import conda, names
from umbel.flops.words import Failed


def translated(*entries: str) -> conda.Environment:
    return conda.translate("dependencies:\n" + "".join(f"  - {e}\n" for e in entries))


def texts(*entries: str) -> list[str]:
    return [requirement.text for requirement in translated(*entries).requirements]


@pytest.mark.parametrize(
    "entry, text",
    {
        "numpy": "numpy",
        "NumPy": "numpy",
        "numpy=1.26": "numpy==1.26.*",
        "numpy=1.26.*": "numpy==1.26.*",
        "numpy==1.26.4": "numpy==1.26.4",
        "numpy=1.26.4=py311h64a7726_0": "numpy==1.26.4",
        "numpy==1.26.4=py311_0": "numpy==1.26.4",
        "numpy 1.26.4": "numpy==1.26.4",
        "numpy 1.26.4 py311_0": "numpy==1.26.4",
        "numpy 1.26.*": "numpy==1.26.*",
        "'numpy>=1.20,<2'": "numpy>=1.20,<2",
        "'numpy >=1.20, !=1.24.*'": "numpy>=1.20,!=1.24.*",
        "'numpy<=2'": "numpy<=2",
        "'numpy~=1.26.1'": "numpy~=1.26.1",
        "'numpy>=1.4.*'": "numpy>=1.4",
        "numpy=2.0rc1": "numpy==2.0rc1",
        "numpy=*": "numpy",
        "pytorch=2.1": "torch==2.1.*",
        "pytorch-cpu": "torch",
        "torchvision": "torchvision",
        "tensorflow-gpu=2.15": "tensorflow==2.15.*",
        "opencv": "opencv-python-headless",
        "matplotlib-base": "matplotlib",
        "pytables": "tables",
        "msgpack-python": "msgpack",
        "huggingface_hub": "huggingface_hub",
        "{pip: ['torch==2.1.1']}": "torch==2.1.1",
        "{pip: ['My.Own_package[fast]>=2; python_version>\"3\"']}": 'My.Own_package[fast]>=2; '
        'python_version > "3"',
    }.items(),
)
def test_entries(entry, text):
    assert texts(entry) == [text]


def test_a_file_as_flops_has_it():
    found = conda.translate(
        """name: mlflow-env
channels:
  - conda-forge
dependencies:
  - python=3.10.14
  - pip<=24.0
  - mlflow=2.12.1   # logged with
  - scikit-learn=1.4.2
  - pip:
    - mlflow==2.12.1
    - Flops_Utils
    - pandas==2.2.1
"""
    )
    assert found.python == "3.10"
    assert [(r.name, r.text, r.line) for r in found.requirements] == [
        ("scikit-learn", "scikit-learn==1.4.2.*", 8),
        ("pandas", "pandas==2.2.1", 12),
    ]
    assert [note.split(": ")[0] for note in found.notes] == [
        f"conda.yaml, line {line}" for line in (7, 10, 11)
    ]


@pytest.mark.parametrize(
    "entry, asked",
    [("python", None), ("python=3.11", "3.11"), ("python==3.10.14", "3.10"),
     ("python=3.12.1=h_0", "3.12"), ("'python>=3.9,<3.12'", ">=3.9,<3.12")],
)  # fmt: skip
def test_python(entry, asked):
    assert translated(entry, "numpy").python == asked


@pytest.mark.parametrize(
    "entry, expected",
    {
        "cudatoolkit=11.8": "line 2: cudatoolkit cannot be installed: wheels bring the CUDA",
        "pytorch-cuda=12.1": "pytorch-cuda cannot be installed",
        "mkl": "mkl cannot be installed",
        "_libgcc_mutex=0.1=main": "_libgcc_mutex cannot be installed",
        "conda-forge::numpy": "'conda-forge::numpy' names a channel",
        "pytorch/linux-64::pytorch": "names a channel",
        "libfoo": "line 2: libfoo is not in the table of conda's packages",
        "'numpy[version=\">=1\"]'": "is not of the form NAME",
        "numpy=1.2|1.3": "has alternatives (|)",
        "numpy=one": "'one' is no version",
        "'numpy>>1'": "is no version",
        "'numpy=1.2=a=b=c'": "is no version",
        "'numpy*'": "is not of the form NAME",
        "'-e .'": "is not of the form NAME",
        "'numpy; rm -rf'": "is no version",
        "[numpy]": "an entry must be text",
        "{conda: [numpy]}": "'conda' is no section",
        "{pip: numpy}": "pip is no list",
        "{pip: [[numpy]]}": "an entry of pip must be text",
        "{pip: ['-r requirements.txt']}": "is an option of pip",
        "{pip: ['--extra-index-url=x']}": "is an option of pip",
        "{pip: ['git+ssh://host/x']}": "is an address or a path",
        "{pip: ['./local']}": "is an address or a path",
        "{pip: ['x @ file:///etc/passwd']}": "is an address",
        "{pip: ['no good !!']}": "is no requirement",
        "{pip: ['']}": "is no requirement",
    }.items(),
)
def test_refused(entry, expected):
    with pytest.raises(Failed) as failed:
        translated(entry)
    (sentence,) = failed.value.all
    assert sentence.startswith("conda.yaml, line 2: ")
    assert expected in sentence and "\n" not in sentence


@pytest.mark.parametrize(
    "text, expected",
    {
        "": "has no dependencies",
        "just text": "has no dependencies",
        "- numpy": "has no dependencies",
        "dependencies:": "lists no package under dependencies",
        "dependencies: numpy": "dependencies is no list",
        "dependencies:\n - python=3.11": "lists no package",
        "dependencies: [numpy]\ndependencies: [scipy]": "line 2: 'dependencies' stands there twice",
        "dependencies: [numpy]\nvariables: {A: b}": "line 2: 'variables' is not supported",
        "dependencies:\n  - numpy\n- pip:\n  - scipy": "line 3: not YAML",
        "a: b: c": "line 1: not YAML",
        "{" * 3000: "not YAML",
        "dependencies: !!python/object/apply:os.system [id]": "id is not in the table",
        "a: &a [x]\nb: *nowhere": "line 2: not YAML",
        "---\na: b\n---\nc: d": "not YAML",
        "dependencies: [" + "numpy, " * 600 + "numpy]": "has 601 entries; at most 500",
    }.items(),
    ids=range(15),
)
def test_files_that_are_none(text, expected):
    with pytest.raises(Failed) as failed:
        conda.translate(text)
    assert expected in failed.value.all[0]


def test_aliases_do_not_multiply():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    with pytest.raises(Failed):
        conda.translate("\n".join(lines) + "\ndependencies: *a29")


def test_any_version_becomes_one_that_it_satisfies():
    """Whatever is asked for by `=`, `==` or a range holds for the very version that was named."""
    rng = random.Random(20260101)
    for _ in range(2000):
        version = ".".join(str(rng.randrange(30)) for _ in range(rng.randint(1, 4)))
        version += rng.choice(["", "", "", "rc1", ".post2", "b3", ".dev4"])
        build = rng.choice(["", f"=py3{rng.randrange(9)}h{rng.randrange(99)}_0"])
        operator = rng.choice(["=", "==", ">=", "<=", "~=", " "])
        entry = f"numpy{operator}{version}{build if operator in ('=', '==') else ''}"
        (text,) = [r.text for r in conda.translate(f"dependencies: ['{entry}']").requirements]
        specifier = Requirement(text).specifier
        assert specifier.contains(Version(version), prereleases=True), (entry, text)
        if operator in ("=", "==", " "):
            assert not specifier.contains(Version(f"9{version}"), prereleases=True)


def test_anything_is_told_or_refused():
    """No text makes it fail in another way than in words, or pass what pip would not."""
    rng = random.Random(7)
    letters = "numpy=<>!~ ,.*|[]:@;'\"0123456789_-#é\t"
    for _ in range(3000):
        entry = "".join(rng.choice(letters) for _ in range(rng.randint(1, 20)))
        quoted = "'" + entry.replace("'", "''").replace("\t", " ") + "'"
        for form in (f"dependencies: [{quoted}]", f"dependencies: [{{pip: [{quoted}]}}]"):
            try:
                found = conda.translate(form)
            except Failed:
                continue
            for requirement in found.requirements:
                assert conda.canonical(Requirement(requirement.text).name) == requirement.name
                assert not Requirement(requirement.text).url


def test_the_table():
    assert not set(names.PIP_NAMES) & set(names.NOT_PYTHON)
    for name, pip_name in names.PIP_NAMES.items():
        assert name == name.lower()
        assert Requirement(pip_name).name == pip_name
