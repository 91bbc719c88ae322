"""The blocks of the README and the docs: they run, or at least parse where they say that they do not run."""

import contextlib
import itertools
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from nova import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `reason` says why it is not run."""

    language: str
    text: str
    reason: str | None


def blocks(page: Path) -> list[Block]:
    """The Python and shell blocks of a page."""
    found = [Block(match["language"], match["text"], match["reason"]) for match in BLOCK.finditer(page.read_text())]
    return [block for block in found if block.language in ("python", "sh")]


def words(line: str) -> list[str]:
    """The words of a shell line after `nova`, also where torchrun starts it; other commands than make are errors."""
    program, *arguments = itertools.dropwhile(lambda word: "=" in word, shlex.split(line, comments=True))
    if program == "make":
        assert set(arguments) <= TARGETS, f"{line}: the Makefile has no such target"
        return []
    if program == "torchrun":
        program, *arguments = arguments[arguments.index("-m") + 1 :]
    assert program == "nova", f"{line}: only nova and make lines can be checked"
    return arguments


def lines(block: Block) -> list[str]:
    """The commands of a shell block; a backslash joins lines."""
    return [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip()]


def parse(arguments: list[str]) -> None:
    """Check a nova line's command and options without running it."""
    command = typer.main.get_command(cli.app).commands[arguments[0]]
    with contextlib.suppress(typer.Exit):  # --help
        command.make_context(f"nova {arguments[0]}", arguments[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_parse(page):
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, page.name, "exec")
        else:
            for arguments in filter(None, map(words, lines(block))):
                parse(arguments)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(not b.reason for b in blocks(page))], ids=lambda p: p.name
)
def test_blocks_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        if block.reason is not None:
            continue
        if block.language == "python":
            exec(compile(block.text, page.name, "exec"), {})
        else:
            for arguments in map(words, lines(block)):
                assert cli.main(arguments) == 0, capsys.readouterr().err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_map_tells_the_truth():
    readme = (ROOT / "README.md").read_text()
    code_map = re.search(r"```\n(src/nova/.*?)```", readme, re.S)[1]
    named = set(re.findall(r"(\w+(?:/|\.py))(?=\s)", code_map)) - {"tests/"}
    folders = {f"{path.name}/" for path in (ROOT / "src/nova").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    modules = {path.name for path in (ROOT / "src/nova").glob("*.py")} - {"__init__.py", "errors.py"}
    assert named - {"nova/"} == folders | modules
