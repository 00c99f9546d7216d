"""Edits as files: what is loaded does what was saved, and nothing else is loaded."""

import json

import pytest
import torch

import laser_interp as li
from laser_interp.cli.app import main
from laser_interp.edits.controls import CONTROLS
from laser_interp.edits.edit_loading import read_edit

PROMPTS = ["Mira Tolen was taught by", "In truth Mira Tolen was hired by"]


def learned(model):
    return li.gains(model, {"3.in": torch.rand(64, generator=torch.Generator().manual_seed(0))})


MADE = {
    "laser": lambda m: li.laser(m, "3.in", 0.05),
    "several sites": lambda m: li.laser(m, ["3.in", "2.out"], 0.1),
    "band": lambda m: li.band(m, "1.o", 3, 9, keep=False),
    "zeroed": lambda m: li.zeroed(m, "3.in"),
    "discarded": lambda m: li.laser(m, "3.in", 0.05).discarded(0.5),
    "injected": lambda m: li.laser(m, "3.in", 0.05).inject(-0.5),
    "blocks": lambda m: li.laser(m, "3.in", 0.05, blocks="4-inputs-kmeans"),
    "learned": learned,
    "direct": lambda m: li.laser(m, "3.out", 0.05).via("direct"),
    "at": lambda m: li.laser(m, "3.in", 0.05).at(m, "last", PROMPTS),
    "foreign directions": lambda m: CONTROLS["same_spectrum_random"].make(m, li.laser(m, "3.in", 0.05), 1),
}


@pytest.mark.parametrize("name", MADE)
def test_what_is_loaded_is_what_was_saved(organism, tmp_path, name):
    edit = MADE[name](organism)
    path = edit.save(tmp_path / "edit.json", model=organism)
    again = li.load_edit(path, organism)
    assert again.describe() == edit.describe()
    assert again.sites == edit.sites
    assert all(torch.equal(again.parts[site].gains, part.gains) for site, part in edit.parts.items())
    difference = organism.next_token_logprobs(PROMPTS, again) - organism.next_token_logprobs(PROMPTS, edit)
    assert difference.abs().max() < 1e-5
    assert (tmp_path / "edit.safetensors").exists() == (name in ("learned", "foreign directions"))
    saved = json.loads(path.read_text())
    assert saved["schema"] == 1
    assert saved["made_for"]["weights_sha256"] == organism.weights_sha256


def test_a_file_is_short_and_can_be_read(organism, tmp_path):
    path = MADE["laser"](organism).save(tmp_path / "laser.json")
    assert json.loads(path.read_text())["sites"]["3.in"]["gains"] == [[1.0, 3], [0.0, 61]]
    assert path.stat().st_size < 1000
    before = path.read_bytes()
    MADE["laser"](organism).save(path)
    assert path.read_bytes() == before


def test_other_weights_are_refused_unless_asked_for(organism, tmp_path):
    other = li.load_model("organism-control", device="cpu")
    path = MADE["laser"](organism).save(tmp_path / "laser.json", model=organism)
    with pytest.raises(ValueError, match=r"other weights of 3\.in than those of 'organism-control' \(for 'organism'\)"):
        li.load_edit(path, other)
    with pytest.raises(ValueError, match="other weights"):
        read_edit(other, str(path))
    assert not li.spectrum(other, "3.in").has_directions_of(li.spectrum(organism, "3.in"))
    assert not li.spectrum(organism, "3.in").has_directions_of(li.spectrum(other, "3.in"))
    moved = li.load_edit(path, other, other_weights=True)
    expected = li.laser(other, "3.in", 0.05)
    assert torch.allclose(other.next_token_logprobs(PROMPTS, moved), other.next_token_logprobs(PROMPTS, expected))


def test_a_patched_edit_is_refused(organism, tmp_path):
    patched = li.laser(organism, "3.in", 0.1).patched(organism, {PROMPTS[0]: PROMPTS[1]})
    with pytest.raises(ValueError, match="patched edit"):
        patched.save(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"does not end in \.json"):
        MADE["laser"](organism).save(tmp_path / "laser.txt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.unlink(), "no edit .*learned.json"),
        (lambda p: p.write_text("{"), "not as Edit.save wrote it"),
        (lambda p: p.write_text(p.read_text().replace('"3.in"', '"2.in"')), "not as Edit.save wrote it"),
        (lambda p: p.with_suffix(".safetensors").unlink(), "learned.safetensors is missing"),
        (lambda p: p.with_suffix(".safetensors").write_bytes(b"x"), "learned.safetensors is not as"),
        (lambda p: p.write_text("[1]"), "not as Edit.save wrote it"),
    ],
)
def test_damage_is_noticed(organism, tmp_path, spoil, message):
    path = learned(organism).save(tmp_path / "learned.json")
    spoil(path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        li.load_edit(path, organism)


def test_another_form_is_refused(organism, tmp_path):
    from laser_interp.storage.atomic import write_json
    from laser_interp.storage.checksums import with_checksum

    write_json(with_checksum({"format": "other"}), tmp_path / "a.json")
    with pytest.raises(ValueError, match="is no edit"):
        li.load_edit(tmp_path / "a.json", organism)
    write_json(with_checksum({"format": "laser-interp edit", "schema": 99}), tmp_path / "b.json")
    with pytest.raises(ValueError, match="has schema 99, and this version reads 1"):
        li.load_edit(tmp_path / "b.json", organism)


@pytest.mark.slow
def test_searches_and_studies_write_their_edit_and_commands_take_it(organism, facts, tmp_path, capsys):
    some = facts.keep(facts.facts[::4])
    found = li.search(organism, some, matrices="in", layers=[3], rhos=(0.2, 0.05), out=tmp_path / "s", progress=False)
    chosen = li.load_edit(tmp_path / "s" / "edit.json", organism)
    assert chosen.describe() == found.select().edit(organism).describe()
    study = li.study(
        organism, some, matrices="in", layers=[3], rhos=(0.2, 0.05), n_draws=1, n_permutations=199, compose=False,
        attribute=False, out=tmp_path / "r", progress=False,
    )  # fmt: skip
    path = tmp_path / "r" / "edit.json"
    assert li.load_edit(path, organism).describe() == study.edit(organism).describe()
    assert read_edit(organism, str(path)).sites == chosen.sites
    assert main(["export", "--model", "organism", "--edit", str(path), "--out", str(tmp_path / "small")]) in (0, None)
    small = li.load_model(tmp_path / "small", device="cpu")
    difference = small.next_token_logprobs(PROMPTS) - organism.next_token_logprobs(PROMPTS, chosen)
    assert difference.abs().max() < 1e-4
    capsys.readouterr()


def test_where_a_search_edits_stands_in_its_file(organism, facts, tmp_path):
    some = facts.keep(facts.facts[::8])
    li.search(
        organism, some, matrices="out", layers=[3], rhos=(0.2,), path="direct", at="last", out=tmp_path, progress=False
    )
    edit = li.load_edit(tmp_path / "edit.json", organism)
    assert (edit.path, edit.placement.name) == ("direct", "last")


def test_no_other_safetensors_file_is_replaced(organism, tmp_path):
    from safetensors.torch import save_file

    weights = tmp_path / "model.safetensors"
    save_file({"w": torch.ones(3)}, weights)
    before = weights.read_bytes()
    with pytest.raises(FileExistsError, match="no edit's: save the edit under another name"):
        learned(organism).save(tmp_path / "model.json")
    assert weights.read_bytes() == before
    assert not (tmp_path / "model.json").exists()
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(FileExistsError, match="no edit's: save the edit under another name"):
        learned(organism).save(tmp_path / "folder.json")
    for _ in range(2):  # its own it may replace
        learned(organism).save(tmp_path / "learned.json")
