"""The wheel: what is in it, and that it works away from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from laser_interp.facts.shipped import shipped_table

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(folder),
            str(ROOT),
        ],
        check=True,
    )
    (path,) = folder.glob("laser_interp-*.whl")
    return path


def test_it_carries_the_organism_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("organism", "organism-control", "organism-experts"):
        for file in ("config.json", "model.safetensors", "tokenizer.json", "organism.json"):
            assert f"laser_interp/organism/checkpoints/{name}/{file}" in names
        for file in ("facts.jsonl", "ledger.csv"):
            assert f"laser_interp/organism/checkpoints/{shipped_table(name, file).parent.name}/{file}" in names
    assert "laser_interp/py.typed" in names
    assert "laser_interp/__init__.pyi" in names  # without which there are no public names
    assert "laser_interp/analyses/controls.py" in names
    assert {name.split("/")[0] for name in names} == {"laser_interp", names[-1].split("/")[0]}
    assert wheel.stat().st_size < 6_000_000


@pytest.mark.slow
def test_it_runs_from_any_folder(wheel, tmp_path):
    """Installed alone, in front of the checkout's editable install, and used from an empty folder."""
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)], check=True
    )
    folder = tmp_path / "empty"
    folder.mkdir()
    code = (
        "import laser_interp as li, sys; from pathlib import Path;"
        f"assert Path(li.__file__).is_relative_to({str(site)!r}), li.__file__;"
        "from laser_interp.cli.app import main;"
        "sys.exit(main('study --model organism --facts organism --limit 80 --layers 3 --matrices in --rho 0.05 "
        "--n-draws 1 --n-permutations 99 --out out --quiet'.split())"
        " or main(['analyse', 'controls', '--edit', '3.in:0.05', '--out', 'asked']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "out" / "summary.json").is_file()
    assert (folder / "out" / "figures" / "controls.pdf").is_file()
    assert (folder / "asked" / "figures" / "controls.pdf").is_file()


def test_every_pin_is_by_version():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert "torch==2.13.0" in lines
    assert all("==" in line and "://" not in line and "@" not in line for line in lines)
