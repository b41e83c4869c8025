"""The budgets and the order of the house; what ruff and import-linter do not see."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGES = ("chappe", "protos", "svc_edge", "svc_fanout", "svc_identity", "svc_message", "svc_presence")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
MAX_CLASS_LINES = 250
MAX_METHODS = 15
MAX_PARAMETERS = 6
MAX_NESTING = 3
MAX_README_LINES = 150
FORBIDDEN_MODULES = {"base", "common", "core", "helper", "helpers", "manager", "misc", "util", "utils"}
NESTING = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar, ast.Match)
SILENCE = re.compile(r"#\s*(noqa|type:\s*ignore|pyright:\s*ignore)")
EXPLAINED = re.compile(r"# (noqa: [A-Z]+\d+(, ?[A-Z]+\d+)*|(type|pyright): ignore\[[\w, -]+\]) +[-#] *\w")
ROOT_ENTRIES = {
    *PACKAGES,
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "buf.yaml",
    "compose.yaml",
    "docs",
    "k8s",
    "locks",
    "pyproject.toml",
    "tests",
    "web",
}

type_of_function = ast.FunctionDef | ast.AsyncFunctionDef


class Source(NamedTuple):
    """One hand-written module."""

    path: Path
    lines: int
    nodes: list[ast.AST]


@pytest.fixture(scope="module")
def sources(root: Path) -> list[Source]:
    found = []
    for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*.py")):
        name = path.relative_to(root)
        if name.parts[:2] != ("chappe", "api"):
            text = path.read_text()
            found.append(Source(name, len(text.splitlines()), list(ast.walk(ast.parse(text)))))
    return found


def functions(sources: list[Source]) -> Iterator[tuple[str, type_of_function]]:
    for source in sources:
        for node in source.nodes:
            if isinstance(node, type_of_function):
                yield f"{source.path}:{node.lineno} {node.name}", node


def classes(sources: list[Source]) -> Iterator[tuple[str, ast.ClassDef]]:
    for source in sources:
        for node in source.nodes:
            if isinstance(node, ast.ClassDef):
                yield f"{source.path}:{node.lineno} {node.name}", node


def test_files_are_short(sources: list[Source]) -> None:
    long = [f"{source.path}: {source.lines} lines" for source in sources if source.lines > MAX_FILE_LINES]

    assert long == []


def test_functions_are_short(sources: list[Source]) -> None:
    long = [
        f"{place}: {code_lines(node)} lines"
        for place, node in functions(sources)
        if code_lines(node) > MAX_FUNCTION_LINES
    ]

    assert long == []


def test_functions_take_few_parameters(sources: list[Source]) -> None:
    many = [
        f"{place}: {count} parameters"
        for place, node in functions(sources)
        if (count := parameters(node)) > MAX_PARAMETERS
    ]

    assert many == []


def test_functions_nest_little(sources: list[Source]) -> None:
    deep = [
        f"{place}: {depth} levels" for place, node in functions(sources) if (depth := nesting(node.body)) > MAX_NESTING
    ]

    assert deep == []


def test_classes_are_short(sources: list[Source]) -> None:
    long = [
        f"{place}: {code_lines(node)} lines" for place, node in classes(sources) if code_lines(node) > MAX_CLASS_LINES
    ]

    assert long == []


def test_classes_have_few_methods(sources: list[Source]) -> None:
    many = [
        f"{place}: {count} methods"
        for place, node in classes(sources)
        if (count := sum(isinstance(item, type_of_function) for item in node.body)) > MAX_METHODS
    ]

    assert many == []


def test_modules_are_named_after_what_they_hold(sources: list[Source]) -> None:
    vague = [
        str(source.path)
        for source in sources
        if FORBIDDEN_MODULES & {part.removeprefix("_") for part in source.path.with_suffix("").parts}
    ]

    assert vague == []


def test_only_mains_and_the_loader_read_the_environment(sources: list[Source]) -> None:
    readers = {
        str(source.path)
        for source in sources
        for node in source.nodes
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    }

    allowed = {name for name in readers if name.endswith("__main__.py") or name.startswith("chappe/cli/")}
    # The second only looks where profiles are, as the command line does.
    assert readers - allowed - {"chappe/runtime/config.py", "chappe/client/profiles.py"} == set()


def test_background_tasks_are_started_by_the_supervisor_only(sources: list[Source]) -> None:
    starters = {
        str(source.path)
        for source in sources
        for node in source.nodes
        if isinstance(node, ast.Attribute) and node.attr in {"create_task", "ensure_future"}
    }

    assert starters <= {"chappe/runtime/tasks.py", "chappe/client/tasks.py"}


def test_every_exception_to_a_rule_names_the_rule_and_a_reason(root: Path, sources: list[Source]) -> None:
    silent = [
        f"{source.path}:{number}"
        for source in sources
        for number, line in enumerate((root / source.path).read_text().splitlines(), 1)
        if lacks_reason(line)
    ]

    assert silent == []


def test_readme_is_short(root: Path) -> None:
    readme = root / "README.md"

    assert len(readme.read_text().splitlines()) <= MAX_README_LINES


def test_every_command_that_the_pages_name_is_a_target_of_make(root: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), flags=re.MULTILINE))
    pages = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]

    named = {name for page in pages for name in re.findall(r"`make ([a-z]+)", page.read_text())}

    assert named - targets == set()


def test_the_root_holds_only_what_is_expected(root: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True, text=True)
    entries = {name.split("/")[0] for name in listed.stdout.split("\0") if name}

    visible = {entry for entry in entries if not entry.startswith(".")}
    assert visible - ROOT_ENTRIES == set()


def code_lines(node: type_of_function | ast.ClassDef) -> int:
    """Counts the lines of a definition without its docstring."""
    first = node.body[0]
    docstring = 0
    if ast.get_docstring(node, clean=False) is not None:
        docstring = (first.end_lineno or first.lineno) - first.lineno + 1
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def parameters(node: type_of_function) -> int:
    """Counts the parameters without `self` and `cls`."""
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return sum(argument.arg not in {"self", "cls"} for argument in given)


def nesting(body: list[ast.stmt]) -> int:
    """Returns how many branches and loops stand inside one another; `elif` and `with` add none."""
    depths = [0]
    for statement in body:
        if isinstance(statement, (*NESTING, ast.With, ast.AsyncWith)):
            inner = max(nesting(block) for block in blocks(statement))
            depths.append(inner + isinstance(statement, NESTING))
    return max(depths)


def blocks(statement: ast.stmt) -> list[list[ast.stmt]]:
    """Returns the blocks of a compound statement."""
    found = [getattr(statement, name, []) for name in ("body", "orelse", "finalbody")]
    found += [handler.body for handler in getattr(statement, "handlers", [])]
    found += [case.body for case in getattr(statement, "cases", [])]
    if isinstance(statement, ast.If) and len(statement.orelse) == 1 and isinstance(statement.orelse[0], ast.If):
        found[1:2] = blocks(statement.orelse[0])
    return found


def lacks_reason(line: str) -> bool:
    """Tells whether a line silences a checker without the rule's code or without words after it."""
    return bool(SILENCE.search(line)) and not EXPLAINED.search(line)
