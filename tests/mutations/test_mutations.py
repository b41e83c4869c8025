"""The catalogue fits the sources, and the runner tells what it finds; `make mutations` plays all of it."""

from pathlib import Path

import pytest

from tests.mutations.__main__ import main, play
from tests.mutations.catalogue import MUTATIONS
from tests.mutations.mutation import Mutation
from tests.mutations.play import SEEDS, TEST
from tests.mutations.scenes import SCENES
from tests.mutations.tree import CannotApplyError, Edit, Tree, check

CHEAPEST = ("age-check", "user-tags")

pytestmark = pytest.mark.system


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_repair_stands_where_the_catalogue_says(mutation: Mutation) -> None:
    check((*mutation.weakened, *mutation.edits))


def test_every_scene_is_played_and_every_name_is_used_once() -> None:
    names = [mutation.name for mutation in MUTATIONS]

    assert len(set(names)) == len(names)
    scenes = {mutation.scene for mutation in MUTATIONS}
    assert {scene for scene in scenes if not scene.endswith(SEEDS) and TEST not in scene} == set(SCENES)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CHEAPEST)
def test_the_checker_catches_what_happens_without_a_repair(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--only", name])

    told = capsys.readouterr().out
    assert status == 0, told
    assert "1 caught of 1" in told


@pytest.mark.parametrize("old", ["no such text", "self"])
def test_an_edit_that_does_not_fit_exactly_once_is_refused(old: str) -> None:
    with pytest.raises(CannotApplyError, match=r"svc_edge/rpc\.py holds this \d+ times and not once"):
        check([Edit("svc_edge/rpc.py", old, "")])


def test_edits_of_a_copy_are_unmade(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    path = tmp_path / "svc_edge" / "rpc.py"
    before = path.read_text()

    with tree.edited([Edit("svc_edge/rpc.py", "WINDOW = 32_768\n", "WINDOW = 1\n")]):
        assert "WINDOW = 1\n" in path.read_text()
    assert path.read_text() == before


def test_a_scene_that_cannot_be_played_is_no_silence(tmp_path: Path) -> None:
    played = play(tmp_path, "talk")

    assert not played.is_silent
    assert played.failure.startswith("the scene ended with")
