"""The pages are true: what they tell to type works, and what they name exists.

Blocks in `sh` and `python` are executed in the order of their page, against a system that was started as `make run`
starts it; the port 7000 of the pages stands for its port. A comment above a block changes that:
`<!-- not run: why -->`, or `<!-- file: name -->` for one that is to be saved.
"""

import ast
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PAGES = ("README.md", *(f"docs/{name}.md" for name in ("run", "extend", "protocol", "observe", "operate")))
GRPCURL = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.8.0"
"""An old one: it knows everything that the pages type, and is built in half the time of what they install."""
WSCAT = "wscat@6.1.0"
WAIT_S = 60.0

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>not run|file): (?P<detail>[^\n]+?) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PATH = re.compile(r"(?:\.?[\w-]+/)*[\w-]+(?:\.[\w-]+)*/?")
_ROOTS = ("chappe/", "docs/", "k8s/", "locks/", "protos/", "svc_", "tests/", "web/")
_MAKE = re.compile(r"\bmake ([a-z][a-z ]*)")
# What may stand at the head of a page's line that is typed, though its block does not say that it is one.
_COMMANDS = (".venv/bin/chappe ", "make ")


class Block(NamedTuple):
    """One block of a page."""

    mark: str
    """Empty, "not run" or "file"."""
    detail: str
    kind: str
    text: str

    @property
    def is_typed(self) -> bool:
        """Whether it is commands."""
        lines = self.text.splitlines()
        return self.kind == "sh" or (not self.kind and all(line.startswith(_COMMANDS) for line in lines if line))


def blocks(page: Path) -> list[Block]:
    """Returns the fenced blocks of a page."""
    return [Block(*(found[name] or "" for name in Block._fields)) for found in _BLOCK.finditer(page.read_text())]


def prose(page: Path) -> str:
    """Returns a page without its blocks."""
    return _BLOCK.sub("", page.read_text())


def pages(root: Path) -> list[Path]:
    """Returns every page that people wrote or read."""
    return sorted([root / "README.md", root / "CHANGELOG.md", *(root / "docs").rglob("*.md")])


class System:
    """A running system, and a folder in which the pages' commands are typed."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.first_port = 0
        self._groups: list[int] = []
        (folder / "home").mkdir()
        for name in (".venv", "protos", "docs"):
            (folder / name).symlink_to(Path(sys.prefix) if name == ".venv" else root / name)
        paths = [str(cache_of(GRPCURL)), str(cache_of(WSCAT) / "node_modules" / ".bin"), os.environ.get("PATH", "")]
        self._environ = os.environ | {"HOME": str(folder / "home"), "PATH": os.pathsep.join(paths)}
        self._environ.pop("CHAPPE_HOME", None)

    def up(self) -> subprocess.Popen[str]:
        """Starts what `make run` starts, on free ports; returns once it is ready."""
        command = [".venv/bin/chappe", "up", "--json", "--port", "0"]
        with (self.folder / "up.log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self._environ, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (self.folder / "up.log").read_text()
        self.first_port = int(json.loads(line)["ws"][0].rpartition(":")[2])
        return process

    def run(self, page: Path) -> str:
        """Executes every block of a page; returns what they printed."""
        try:
            return "".join(self._run_block(block) for block in blocks(page) if block.mark != "not run")
        finally:
            for group in self._groups:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            self._groups.clear()

    def _run_block(self, block: Block) -> str:
        text = re.sub(r"(?<=127\.0\.0\.1:)7\d{3}", lambda port: str(int(port[0]) - 7000 + self.first_port), block.text)
        if block.mark == "file":
            (self.folder / block.detail).write_text(text)
            return ""
        if block.kind == "python":
            return self._run_python(text)
        return self._type(text) if block.is_typed else ""

    def _type(self, text: str) -> str:
        """Types commands; one that listens until it is stopped is left alone until the end of the page."""
        server = f"--server ws://127.0.0.1:{self.first_port}"
        text = re.sub(r"(?<= )(register|link)(?= [+\"])", rf"\1 {server}", text)
        lines = [line for line in text.splitlines() if not line.startswith("make ")]
        lines = [f"{line} &" if " listen" in line and "--count" not in line else line for line in lines]
        output = self.folder / "output"
        with output.open("w") as file:
            process = self._start(["bash", "-eu", "-o", "pipefail", "-c", "\n".join(lines)], file)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(WAIT_S)
        # No code: it still runs.
        assert process.returncode == 0, f"{text}\n{output.read_text()}\n{self.logs()}"
        return output.read_text()

    def logs(self) -> str:
        """Returns the end of every log of the system."""
        files = [self.folder / "up.log", *(self.folder / ".chappe" / "logs").glob("*.log")]
        return "\n".join(f"{file.name}:\n{file.read_text()[-2000:]}" for file in files)

    def _run_python(self, text: str) -> str:
        """Runs lines that may await, until they have printed something."""
        runner = (
            "import ast, asyncio, inspect, sys\n"
            "code = compile(sys.argv[1], 'page', 'exec', ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)\n"
            "found = eval(code, {'__name__': '__main__'})\n"
            "inspect.iscoroutine(found) and asyncio.run(asyncio.wait_for(found, 30))\n"
        )
        process = self._start([".venv/bin/python", "-u", "-c", runner, text], subprocess.PIPE)
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
        rest, _ = process.communicate()
        assert "Traceback" not in line + rest, line + rest
        return line

    def _start(self, command: list[str], output: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        self._groups.append(process.pid)
        return process


def cache_of(tool: str) -> Path:
    """Returns where a tool that was installed by a test is kept; it is named with its version."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "chappe-tests" / tool.rpartition("/")[2].replace("@v", "-").replace("@", "-")


@pytest.fixture(scope="module")
def grpcurl() -> None:
    """Builds grpcurl once on this machine, as docs/extend.md says."""
    folder = cache_of(GRPCURL)
    if shutil.which("grpcurl") or (folder / "grpcurl").exists():
        return
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip("grpcurl is not here, and Go is not here to build it")
    # Unoptimised it is built in two thirds of the time, which is longer than the rest of the tests of the pages.
    quick = ["-gcflags=all=-N -l", "-ldflags=-w"]
    install([go, "install", *quick, GRPCURL], {"GOBIN": str(folder), "CGO_ENABLED": "0"})


@pytest.fixture(scope="module")
def wscat() -> None:
    """Installs wscat once on this machine, as docs/protocol.md says."""
    folder = cache_of(WSCAT)
    if shutil.which("wscat") or (folder / "node_modules" / ".bin" / "wscat").exists():
        return
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("wscat is not here, and npm is not here to install it")
    install([npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), WSCAT], {})


def install(command: list[str], environ: dict[str, str]) -> None:
    done = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{command[-1]} is not here and cannot be installed: {done.stderr[-500:]}")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[System]:
    """Starts the system, as `make run` does."""
    started = System(tmp_path_factory.mktemp("docs"), root)
    process = started.up()
    yield started
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=WAIT_S)


@pytest.fixture(scope="module")
def quick_start(started: System, root: Path) -> str:
    """Types everything in the README; returns what was printed."""
    return started.run(root / "README.md")


@pytest.mark.system
@pytest.mark.timeout(180)
def test_the_readme_works_as_typed(quick_start: str) -> None:
    assert "Alice is registered as +441632960001" in quick_start
    assert "hello, Bob" in quick_start


@pytest.mark.system
@pytest.mark.timeout(180)
def test_the_page_about_running_works_as_typed(started: System, root: Path) -> None:
    printed = started.run(root / "docs" / "run.md")

    assert "Carol: hello, Dave" in printed
    assert "device 2" in printed
    assert '"accessToken"' in printed
    assert not re.search(r"^(warning|failed) ", printed, re.MULTILINE)


@pytest.mark.system
@pytest.mark.timeout(180)
def test_the_page_about_observing_works_as_typed(started: System, root: Path) -> None:
    printed = started.run(root / "docs" / "observe.md")

    assert "chappe_edge_connections " in printed
    assert "chappe_message_store_write_seconds_count " in printed
    assert "Erin: hello, Frank" in printed
    assert "has stored it (" in printed
    assert "ledger       delivered to" in printed


@pytest.mark.system
@pytest.mark.timeout(180)
def test_the_page_about_operating_works_as_typed(started: System, root: Path) -> None:
    printed = started.run(root / "docs" / "operate.md")

    assert not re.search(r"^failed ", printed, re.MULTILINE)
    assert "chappe_message_clock_is_trusted 1" in printed
    assert "chappe_edge_signed_in " in printed
    assert "removed " in printed
    assert "replayed 0 entries" in printed
    assert (started.folder / "backup" / "backup_manifest").is_file()


@pytest.mark.system
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("quick_start", "grpcurl")
def test_ten_lines_of_python_and_grpcurl_read_a_chat_and_a_health(started: System, root: Path) -> None:
    page = root / "docs" / "extend.md"

    printed = started.run(page)

    assert printed.startswith("SERVING\n")
    assert "hello, Bob" in printed
    assert '"status": "SERVING"' in printed
    assert '"content": "CgpoZWxsbywgQm9i"' in printed
    assert "tool may not call" in printed
    assert printed.count("\nsaid ") == 2
    assert "Alerts" in printed
    assert "the fan is loud" in printed
    [program, _] = [block.text for block in blocks(page) if block.mark == "file"]
    tree = ast.parse(program)
    last_import = max(node.end_lineno or 0 for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
    assert len([line for line in program.splitlines()[last_import:] if line]) <= 10


@pytest.mark.system
@pytest.mark.timeout(180)
@pytest.mark.usefixtures("wscat")
def test_the_protocol_is_spoken_by_hand(started: System, root: Path) -> None:
    printed = started.run(root / "docs" / "protocol.md")

    assert '{"welcome":' in printed
    assert '{"pong":{"clientMs":"1",' in printed


@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_code_is_executed_or_says_why_not(root: Path, name: str) -> None:
    silent = [
        block.text
        for block in blocks(root / name)
        if not block.mark and not block.is_typed and block.kind not in {"python", "json", ""}
    ]

    assert silent == []


def test_every_make_target_that_a_page_names_is_there(root: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), re.MULTILINE))

    missing = {
        f"{page.relative_to(root)}: make {word}"
        for page in pages(root)
        for found in _MAKE.finditer("\n".join([*typed(page), *_CODE.findall(prose(page))]))
        for word in found[1].split()
        if word not in targets
    }

    assert missing == set()


def typed(page: Path) -> Iterator[str]:
    for block in blocks(page):
        if block.is_typed:
            yield block.text


def test_every_path_that_a_page_names_is_there(root: Path) -> None:
    missing = {
        f"{page.relative_to(root)}: {word}"
        for page in pages(root)
        for word in _CODE.findall(prose(page))
        if _PATH.fullmatch(word) and word.startswith(_ROOTS) and "/" in word
        if not (root / word).exists()
    }

    assert missing == set()


def test_every_link_leads_somewhere(root: Path) -> None:
    broken = {
        f"{page.relative_to(root)}: {target}"
        for page in pages(root)
        for target in _LINK.findall(prose(page))
        if not target.startswith(("https://", "http://"))
        if not leads_somewhere(page, target)
    }

    assert broken == set()


def leads_somewhere(page: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    path = page.parent / name if name else page
    if not path.exists():
        return False
    return not anchor or anchor in anchors(path)


def anchors(page: Path) -> set[str]:
    """Returns the anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_pages_have_one_sentence_per_line(root: Path) -> None:
    crowded = [
        f"{name}: {line}"
        for name in (*PAGES[1:], "docs/guarantees.md", "docs/reference-design.md")
        for line in prose(root / name).splitlines()
        if not line.startswith("|") and re.search(r"[a-z`)]\. [A-Z`]", line)
    ]

    assert crowded == []
