"""Writes everything that is made from the contracts: stubs in chappe/api, and docs/{api,errors,config}.md.

Run `python protos/generate.py` after changing a .proto file. `--check` writes nothing, names every file that
is not what the contracts say, and exits with 1. `--golden` accepts the field limits that a test guards.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

if __package__ is None:  # run as a script, where the checkout is not yet on the path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from protos import document
from protos.contract import ROOT, Contract, ContractError, compile_protos, descriptor_options, read

_STUBS = Path("chappe/api")
_GOLDEN = ROOT / "tests" / "golden" / "limits.txt"
_INIT = '"""Generated from protos/ by `make protos`; never edited by hand."""\n'


def main() -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Writes stubs and reference pages from the contracts.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    parser.add_argument("--golden", action="store_true", help="accept the field limits as they are now")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            contract = generate(Path(folder))
        except ContractError as error:
            print(error, file=sys.stderr)
            return 1
        if options.check:
            return _report(Path(folder))
        install(Path(folder))
    if options.golden:
        _GOLDEN.parent.mkdir(exist_ok=True)
        _GOLDEN.write_text(document.limits_list(contract))
    return 0


def generate(target: Path) -> Contract:
    """Writes all generated files below `target`, as they lie below the root of the project.

    Raises:
        ContractError: The contracts do not compile.
    """
    binaries = Path(sys.executable).parent
    descriptors = target / "contract.binpb"
    compile_protos(
        [
            *descriptor_options(descriptors),
            f"--plugin=protoc-gen-mypy={binaries / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={binaries / 'protoc-gen-mypy_grpc'}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet:{target}",
        ]
    )
    contract = read(descriptors)
    descriptors.unlink()
    _drop_empty_services(target, contract)
    for folder in (target / _STUBS, *(path for path in (target / _STUBS).rglob("*") if path.is_dir())):
        (folder / "__init__.py").write_text(_INIT)
    docs = target / "docs"
    docs.mkdir()
    (docs / "api.md").write_text(document.api_page(contract))
    (docs / "errors.md").write_text(document.errors_page(contract))
    (docs / "config.md").write_text(document.config_page())
    return contract


def install(made: Path) -> None:
    """Brings the generated files into the project and removes stubs of contracts that are gone."""
    for name in stale(made):
        source, target = made / name, ROOT / name
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        else:
            target.unlink()


def stale(made: Path) -> list[Path]:
    """Returns the files, relative to the root, that differ from those below `made`; sorted."""
    wanted = {path.relative_to(made) for path in _files(made)}
    present = {path.relative_to(ROOT) for path in _files(ROOT / _STUBS)}
    return sorted(name for name in wanted | present if _content(made / name) != _content(ROOT / name))


def _report(made: Path) -> int:
    names = stale(made)
    for name in names:
        print(f"{name}: not what the contracts say; run make protos", file=sys.stderr)
    return 1 if names else 0


def _drop_empty_services(target: Path, contract: Contract) -> None:
    """Removes the service stubs of files without a service, which hold nothing but a version check."""
    for path in target.rglob("*_pb2_grpc.py*"):
        proto = path.relative_to(target).as_posix().rsplit("_pb2_grpc", 1)[0] + ".proto"
        if proto not in contract.files_with_services:
            path.unlink()


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
