"""Rules of the whole code base that no type checker sees: layers, calls that can run others' code, sizes, pins."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "nova").rglob("*.py"))
LONGEST = 400

FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "marshal", "shelve", "joblib", "torchvision", "torchaudio"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "torch.load", "yaml.load", "yaml.unsafe_load"}
FORBIDDEN_METHODS = {"extractall"}
FORBIDDEN_ARGUMENTS = {"trust_remote_code": True, "shell": True, "weights_only": False, "allow_pickle": True}


def violations(source: str) -> list[str]:
    """What in `source` is forbidden, with line numbers."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"{node.lineno}: import {name}" for name in names if name.split(".")[0] in FORBIDDEN_IMPORTS]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in FORBIDDEN_CALLS or called.rpartition(".")[2] in FORBIDDEN_METHODS:
                found.append(f"{node.lineno}: {called}()")
            for keyword in node.keywords:
                wrong = keyword.arg in FORBIDDEN_ARGUMENTS and isinstance(keyword.value, ast.Constant)
                if wrong and keyword.value.value is FORBIDDEN_ARGUMENTS[keyword.arg]:
                    found.append(f"{node.lineno}: {keyword.arg}={keyword.value.value}")
    return found


def test_imports_go_downward_only(capsys):
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None) == 0, capsys.readouterr().out


def test_nothing_that_can_run_code_from_files():
    found = {str(path.relative_to(ROOT)): violations(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "torch.load('x.pt')",
        "archive.extractall()",
        "subprocess.run('ls', shell=True)",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
    ],
)
def test_the_rule_sees_what_it_forbids(source):
    assert len(violations(source)) == 1


def test_files_are_short():
    files = SOURCES + sorted((ROOT / "tests").rglob("*.py")) + sorted((ROOT / "benchmarks").rglob("*.py"))
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [name for extra in project["optional-dependencies"].values() for name in extra]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pins = {re.split(r"==|<", line)[0].lower().replace("_", "-"): line for line in lines}
    for requirement in wanted:
        name = re.split(r"[^\w-]", requirement)[0].lower().replace("_", "-")
        assert "==" in pins.get(name, ""), f"{name} has no version in constraints.txt"
    assert all("+" not in line and "://" not in line and "@" not in line for line in lines)
    assert {pins[name] for name in ("torchvision", "torchaudio", "torchcodec")} == {
        "torchvision<0",
        "torchaudio<0",
        "torchcodec<0",
    }


def test_ci_runs_the_tests_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    command = script.rsplit("exec ", 1)[1].strip()
    assert command == "make test"
    assert command in (ROOT / "README.md").read_text()
