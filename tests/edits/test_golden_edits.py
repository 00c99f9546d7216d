"""Golden numbers of every way to make an edit, and what is said where one cannot be made; see `golden_numbers`."""

import torch
from golden_numbers import check_golden, refused

import laser_interp as li
from laser_interp.edits.controls import CONTROLS, fits_layer, same_rank_in_layer
from laser_interp.edits.edit_loading import read_edit
from laser_interp.edits.edit_spec import describe_edits
from laser_interp.edits.other_changes import pruned
from laser_interp.edits.sites import resolve, resolve_layers, sites_in


def numbers_of(model, edit):
    """An edit's description, and of each edited matrix its gains, the new weight, and what that does to an input."""
    out = {"repr": repr(edit), "description": edit.describe()}
    for site, part in edit.parts.items():
        weight, gains = part.weight, part.gains
        x = torch.linspace(-1, 1, weight.shape[0])[None]
        y = part.rewrite(model, site)(x, torch.zeros(1, weight.shape[1]))
        out[str(site)] = {
            "gains": [gains.sum().item(), gains.square().sum().item(), len(gains)],
            "weight": [weight.norm().item(), weight.abs().max().item(), weight[0, 0].item(), weight[-1, 2].item()],
            "output": [y.norm().item(), y[0, 1].item()],
            "removed_energy": part.removed_energy,
        }
    return out


def test_golden_edits(organism, facts):
    model = organism
    laser = li.laser(model, "3.in", rho=0.05)
    two = li.laser(model, ["2.out", "3.in"], rho=0.2)
    made = {
        "laser": laser,
        "by rank": li.laser(model, layer=1, matrix="q", rank=3),
        "by rate": li.laser(model, "3.in", rate=9),
        "several": two,
        "a group": li.laser(model, "1.mlp", rho=0.3),
        "discarded": laser.discarded(),
        "half discarded": laser.discarded(0.5),
        "half from the top": laser.discarded(0.5, start="top"),
        "injected": laser.inject(0.3),
        "a band": li.band(model, "2.in", 3, 9),
        "without a band": li.band(model, "2.in", 3, 9, keep=False),
        "zeroed": li.zeroed(model, "0.o"),
        "own gains": li.gains(model, {"3.q": [0.5] * 32 + [2.0] * 32}),
        "added": laser + li.laser(model, "1.out", rho=0.1),
        "at the last position": laser.at(model, "last", facts.facts[:3]),
        "four blocks": li.laser(model, "3.in", rho=0.1, blocks=4),
        "four blocks, discarded": li.laser(model, "3.in", rho=0.1, blocks=4).discarded(0.5),
        "blocks of inputs": li.laser(model, "3.in", rho=0.1, blocks="4-inputs"),
        "pruned": pruned(model, "3.in", 0.4),
    }
    made |= {f"read {text}": read_edit(model, text) for text in ("3.in:0.05", "3.in:rank=2+1.out:0.1", "2.q:rate=5")}
    for name, control in CONTROLS.items():
        made |= {f"{name} of {n}": control.make(model, edit, 5) for n, edit in ((1, laser), (2, two))}
    made["the same rank in layer 2"] = same_rank_in_layer(model, li.laser(model, "3.in", rho=0.1, blocks=4), 2)
    check_golden("edits", {name: numbers_of(model, edit) for name, edit in made.items()}, tolerance=2e-4)


def test_golden_spectra(organism):
    names = ("max_rank", "block_rank", "stable_rank", "effective_rank", "noise_edge", "rank_above_noise", "n_bytes")
    numbers = {}
    for site in ("3.in", "0.q", "2.out"):
        known = li.spectrum(organism, site)
        own = {name: getattr(known, name) for name in names} | {"S": known.S[:5].tolist(), "repr": repr(known)}
        numbers[site] = own | {"html": known._repr_html_(), "energy": known.energy[:3].tolist()}
    divided = li.spectrum(organism, "3.in", blocks=4)
    numbers["divided"] = {
        "repr": repr(divided),
        "S": divided.S[:9].tolist(),
        "place": divided.place[:9].tolist(),
        "block": divided.block[:9].tolist(),
        "first": divided.first(2).sum().item(),
        "reversed": divided.reversed(divided.first(2))[-9:].tolist(),
        "html": divided._repr_html_(),
    }
    check_golden("spectra", numbers, tolerance=2e-4)


def test_golden_descriptions(organism):
    """What texts mean, and which layers and sites names stand for."""
    model = organism
    texts = (
        "3.in:0.05",
        "3.in:rank=2",
        "2.q:rate=5",
        "3.in:0.1+1.out:0.1",
        "3.in:0.1+1.out:0.2",
        "3.in:0.05:4-outputs",
    )
    numbers = {text: [str(described := describe_edits(model, text)), described.rho, described.ranks] for text in texts}
    numbers |= {text: str(li.EditSpec.parse(numbers[text][0])) for text in texts[:3]}
    for asked in ("all", "*", "1", "0,3", "0-2", "-1", 2, [0, -1]):
        numbers[f"layers {asked}"] = resolve_layers(model, asked)
    for asked in ("3.in", "*.mlp", "2.*", "blocks.1.mlp.in", ["0.q", "3.out"]):
        numbers[f"sites {asked}"] = [str(site) for site in resolve(model, asked)]
    numbers["attention"] = [str(site) for site in sites_in(model, [1, 2], ["attn", "out"])]
    laser = li.laser(model, "3.in", rho=0.05)
    numbers["fits"] = [fits_layer(model, laser.sites, layer) for layer in range(model.n_layers)]
    numbers["fits twice"] = [fits_layer(model, resolve(model, ["2.in", "3.in"]), n) for n in (0, 2)]
    check_golden("descriptions", numbers)


REFUSED = {
    "rho of 2": lambda m: li.laser(m, "3.in", rho=2),
    "rho of 0": lambda m: li.laser(m, "3.in", rho=0),
    "rank of 99": lambda m: li.laser(m, "3.in", rank=99),
    "rank of -1": lambda m: li.laser(m, "3.in", rank=-1),
    "rho and rank": lambda m: li.laser(m, "3.in", rho=0.1, rank=2),
    "nothing": lambda m: li.laser(m, "3.in"),
    "a layer too many": lambda m: li.laser(m, "7.in", rho=0.1),
    "no such matrix": lambda m: li.laser(m, "3.gate", rho=0.1),
    "no such matrix in some layers": lambda m: sites_in(m, [1, 2], "gate"),
    "no site": lambda m: li.laser(m, "in", rho=0.1),
    "two edits of a site": lambda m: li.laser(m, "3.in", rho=0.1) + li.laser(m, "3.in", rho=0.2),
    "a band that ends before it begins": lambda m: li.band(m, "3.in", 9, 3),
    "a band beyond the last": lambda m: li.band(m, "3.in", 3, 99),
    "too few gains": lambda m: li.gains(m, {"3.in": [1.0]}),
    "gains that are not finite": lambda m: li.gains(m, {"3.in": [float("nan")] * 64}),
    "an infinite alpha": lambda m: li.laser(m, "3.in", rho=0.1).inject(float("inf")),
    "a share of 2": lambda m: li.laser(m, "3.in", rho=0.1).discarded(2.0),
    "another start": lambda m: li.laser(m, "3.in", rho=0.1).discarded(0.5, start="middle"),
    "another position": lambda m: li.laser(m, "3.in", rho=0.1).at(m, "first", ["Mira"]),
    "more blocks than rows": lambda m: li.laser(m, "3.in", rho=0.1, blocks=9999),
    "blocks of another kind": lambda m: li.laser(m, "3.in", rho=0.1, blocks="4-heads"),
    "a text of another form": lambda m: read_edit(m, "3.in"),
    "a site twice in a text": lambda m: read_edit(m, "3.in:0.1+3.in:0.2"),
    "blocks that differ": lambda m: read_edit(m, "3.in:0.1:4-outputs+2.in:0.1"),
    "a control of pruning": lambda m: li.controls.random_kept(m, pruned(m, "3.in", 0.4), seed=0),
    "a control in its own layer": lambda m: same_rank_in_layer(m, li.laser(m, "3.in", rho=0.1), 3),
    "a layer that is no number": lambda m: resolve_layers(m, "first"),
}


def test_golden_refusals_of_edits(organism):
    check_golden("refused edits", {what: refused(make, organism) for what, make in REFUSED.items()})
