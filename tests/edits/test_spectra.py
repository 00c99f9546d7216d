"""Exact factorisations, and a cache that cannot serve a wrong one."""

import multiprocessing
import sys
import warnings
from pathlib import Path

import pytest
import torch

import laser_interp as li
from laser_interp.edits.factorisation import factorise
from laser_interp.edits.spectra import Spectrum, _of_weight, weight_sha256
from laser_interp.storage.cache import cache_dir


def matrix(d_in, d_out, decay=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    r = min(d_in, d_out)
    U, _ = torch.linalg.qr(torch.randn(d_in, r, dtype=torch.float64, generator=generator))
    V, _ = torch.linalg.qr(torch.randn(d_out, r, dtype=torch.float64, generator=generator))
    return (U * torch.arange(1, r + 1, dtype=torch.float64) ** -decay) @ V.T


@pytest.mark.parametrize(("d_in", "d_out"), [(40, 40), (30, 120), (120, 30), (1, 8), (8, 1), (50, 70)])
def test_exact(d_in, d_out):
    w = matrix(d_in, d_out)
    U, S, Vh = factorise(w)
    reference = torch.linalg.svdvals(w)
    assert torch.allclose(S, reference, rtol=1e-11, atol=1e-13)
    assert torch.allclose((U * S) @ Vh, w, atol=1e-13)
    eye = torch.eye(min(d_in, d_out), dtype=torch.float64)
    assert torch.allclose(U.T @ U, eye, atol=1e-9)
    assert torch.allclose(Vh @ Vh.T, eye, atol=1e-9)


@pytest.mark.parametrize("rank", [0, 1, 7])
def test_singular_matrices(rank):
    """Where the Gram matrix loses the small values, the plain decomposition is taken."""
    w = matrix(20, 100)
    U, S, Vh = torch.linalg.svd(w, full_matrices=False)
    w = (U[:, :rank] * S[:rank]) @ Vh[:rank]
    U, S, Vh = factorise(w)
    assert torch.allclose((U * S) @ Vh, w, atol=1e-13)
    eye = torch.eye(20, dtype=torch.float64)
    assert torch.allclose(U.T @ U, eye, atol=1e-9)
    assert torch.allclose(Vh @ Vh.T, eye, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_what_is_kept(dtype):
    made = _of_weight(matrix(16, 64).to(dtype))
    assert made.S.dtype == torch.float64
    assert made.U.dtype == made.Vh.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    stored = matrix(16, 64).to(dtype).double()
    assert torch.allclose(made.S, torch.linalg.svdvals(stored), rtol=1e-10)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LASER_INTERP_CACHE", str(tmp_path))
    return cache_dir() / "spectra"


def test_stored_and_read(folder, monkeypatch):
    w = matrix(8, 24).float()
    made = _of_weight(w)
    assert [p.name for p in folder.iterdir()] == [f"{weight_sha256(w)}.safetensors"]
    module = sys.modules["laser_interp.edits.spectra"]
    monkeypatch.setattr(module, "factorise", lambda _: pytest.fail("computed again"))
    read = _of_weight(w)
    for name in ("U", "S", "Vh"):
        assert torch.equal(getattr(made, name), getattr(read, name))


def test_keyed_by_the_weight(folder):
    w = matrix(8, 24).float()
    _of_weight(w)
    other = w.clone()
    other[0, 0] += 1e-6
    assert weight_sha256(other) != weight_sha256(w)
    assert weight_sha256(w.T) != weight_sha256(w)
    assert weight_sha256(w.double()) != weight_sha256(w)
    _of_weight(other)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "one byte", "another's"])
def test_damage_is_noticed_and_mended(folder, damage):
    w = matrix(8, 24).float()
    made = _of_weight(w)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    if damage == "another's":
        _of_weight(matrix(8, 24, seed=1).float())
        (theirs,) = set(folder.iterdir()) - {path}
        path.write_bytes(theirs.read_bytes())
    else:
        flipped = bytearray(whole)
        flipped[-5] ^= 1
        path.write_bytes(
            {"truncated": whole[:-100], "empty": b"", "garbage": b"x" * 500, "one byte": bytes(flipped)}[damage]
        )
    with pytest.warns(UserWarning, match="damaged"):
        again = _of_weight(w)
    assert torch.equal(again.U, made.U)
    assert torch.equal(again.Vh, made.Vh)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _of_weight(w)


def test_large_factors_stay_on_disk(folder):
    """They are views of the file, which the system may drop and read again; small ones are not."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs /proc/self/maps, where Linux tells which files are in memory")
    large = _of_weight(matrix(64, 131072).float())
    assert large.n_bytes > 32 << 20
    assert f"{large.weight_sha256}.safetensors" in maps.read_text()
    small = [_of_weight(matrix(8, 24).float()) for _ in range(2)]
    path = folder / f"{small[0].weight_sha256}.safetensors"
    assert path.name not in maps.read_text()
    path.write_bytes(b"")
    assert torch.equal(small[0].U, small[1].U)


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LASER_INTERP_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="could not be kept"):
        made = _of_weight(matrix(4, 8).float())
    assert isinstance(made, Spectrum)


def _work(seed):
    torch.set_num_threads(1)
    for _ in range(10):
        for other in range(6):
            made = _of_weight(matrix(16, 64, seed=(seed + other) % 6).float())
            for path in cache_dir().glob("*.safetensors"):
                if made.S[0] > 0 and other == seed % 6:
                    path.unlink(missing_ok=True)
    return True


@pytest.mark.slow
def test_two_processes_at_once(folder):
    """They write, read and remove the same files; nobody sees half of one."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert all(pool.map(_work, range(4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(6):
            _of_weight(matrix(16, 64, seed=seed).float())
    assert not list(folder.glob(".*"))


def test_memory_is_bounded_and_nothing_is_lost(organism, monkeypatch):
    first = li.spectrum(organism, li.Site(0, "in"))
    assert li.spectrum(organism, li.Site(0, "in")) is first
    monkeypatch.setattr(sys.modules["laser_interp.edits.spectra"], "KEPT_IN_MEMORY", 3 * first.n_bytes)
    for layer in range(4):
        for matrix in ("in", "out"):
            li.spectrum(organism, li.Site(layer, matrix))
    _, kept = organism._state.memo["spectra"]
    assert sum(made.n_bytes for made in kept.values()) <= 3 * first.n_bytes
    assert list(kept)[-1] == (li.Site(3, "out"), None)
    again = li.spectrum(organism, li.Site(0, "in"))
    assert again is not first
    assert torch.equal(again.U, first.U)


def test_energy_and_display(organism):
    made = li.spectrum(organism, li.Site(3, "in"))
    assert float(made.energy.sum()) == pytest.approx(1)
    assert repr(made).startswith("Spectrum(64x256, rank 64")
    assert "half of its energy" in made._repr_html_()
    assert torch.allclose(made.matrix(), organism.weight(3, "in").double(), atol=1e-6)
