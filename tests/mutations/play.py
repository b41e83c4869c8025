"""Plays one scene on the sources that it is run from: `python -m tests.mutations.play SCENE`; prints a JSON object."""

import asyncio
import json
import logging
import sys
import tempfile
from pathlib import Path

import chappe
from tests.mutations.scenes import SCENES
from tests.mutations.stage import play


def main(name: str) -> None:
    """Plays a scene and prints what the checker says."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    if Path.cwd() not in Path(chappe.__file__).parents:
        raise RuntimeError(f"these would be the sources at {chappe.__file__}, and not those of {Path.cwd()}")
    scene, engines = SCENES[name]
    with tempfile.TemporaryDirectory(prefix="chappe-scene-") as folder:
        report = asyncio.run(play(scene, engines, Path(folder)))
    sys.stderr.write(report.stories() + "\n")
    print(json.dumps({"counts": dict(report.counts), "summary": report.summary()}))


if __name__ == "__main__":
    main(sys.argv[1])
