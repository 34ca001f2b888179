"""The store finds recordings by their latent, in memory or in files, within its limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recordings import rand, recording

from i2am.recording import Plan, Recording, Refusal, Store, fingerprint, fingerprints

FIRST, SECOND, THIRD = (recording(seed=seed, steps=2) for seed in (1, 2, 3))
SIZE = FIRST.bytes


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Store]:
    return lambda memory=2**30, files=2**30: Store(memory, files, lambda: tmp_path)


def planned(made: Recording, layers: int) -> Recording:
    """The same recording, as if its plan had asked for these layers."""
    plan = Plan(layers=((layers, layers),))
    return Recording(replace(made.header, plan=plan), made.arrays)


def same(found: object, wanted: Recording) -> bool:
    """Whether what was found is this recording, bit for bit."""
    return (
        isinstance(found, Recording)
        and found.header == wanted.header
        and found.arrays.keys() == wanted.arrays.keys()
        and all(torch.equal(found.arrays[name], array) for name, array in wanted.arrays.items())
    )


class TestFingerprint:
    def test_names_values_alone(self) -> None:
        """Equal values share a fingerprint, however they lie in memory."""
        latent = rand(0, 2, 4, 6, 8)
        assert fingerprint(latent) == fingerprint(latent.clone())
        assert fingerprint(latent.mT) == fingerprint(latent.mT.contiguous())
        with torch.inference_mode():
            assert fingerprint(latent.clone()) == fingerprint(latent)

    def test_different_latents(self) -> None:
        """One bit, another shape or another precision makes another latent."""
        latent = rand(0, 2, 4, 6, 8)
        changed = latent.clone()
        changed[1, 3, 5, 7] = torch.nextafter(changed[1, 3, 5, 7], torch.tensor(torch.inf))
        others = [changed, latent.reshape(2, 4, 8, 6), latent.half(), latent.double(), latent[:1]]
        assert len({fingerprint(one) for one in (latent, *others)}) == 6

    def test_a_host_may_round(self) -> None:
        """A latent passed on in half precision still leads to its recording."""
        latent = rand(0, 1, 4, 6, 8)
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            assert fingerprint(latent.to(dtype)) in fingerprints(latent)


class TestStore:
    def test_finds(self, make_store: Callable[..., Store]) -> None:
        store = make_store()
        store.put(["a", "a2"], FIRST)
        store.put(["b"], SECOND)
        assert store.get("a") is store.get("a2") is FIRST
        assert store.get("b") is SECOND
        assert store.get("c") is None
        assert len(store) == 2

    def test_the_same_fingerprint_twice(self, make_store: Callable[..., Store]) -> None:
        """A run's output and denoised output are often equal."""
        store = make_store()
        store.put(["a", "b", "a", "b"], FIRST)
        assert store.get("a") is store.get("b") is FIRST
        assert len(store) == 1

    def test_the_same_run_again_replaces_its_record(self, make_store: Callable[..., Store]) -> None:
        store = make_store()
        store.put(["a", "a2"], FIRST)
        store.put(["a", "a2"], SECOND)
        assert store.get("a") is store.get("a2") is SECOND
        assert len(store) == 1

    def test_plans(self, make_store: Callable[..., Store]) -> None:
        """One latent recorded with several plans: the first plan with a record is used."""
        store = make_store()
        one, two, three = (planned(FIRST, layers) for layers in (1, 2, 3))
        store.put(["a"], one)
        store.put(["a"], two)
        plans = [made.header.plan for made in (one, two, three)]
        assert store.get("a") is two
        assert store.get("a", [plans[0]]) is one
        assert store.get("a", [plans[2], plans[0], plans[1]]) is one
        assert store.get("a", [plans[2]]) is None

    def test_refusals(self, make_store: Callable[..., Store]) -> None:
        """A run that could not be recorded is kept with its reason."""
        store = make_store()
        refusal = Refusal(FIRST.header.plan, "because")
        store.put(["a"], refusal)
        assert store.get("a") is refusal
        store.put(["a"], FIRST)
        assert store.get("a") is FIRST


class TestLimits:
    def test_the_least_recently_used_goes_to_a_file(
        self, make_store: Callable[..., Store], tmp_path: Path
    ) -> None:
        """It comes back bit for bit, and its file is deleted."""
        store = make_store(memory=2 * SIZE)
        store.put(["a"], FIRST)
        store.put(["b"], SECOND)
        store.get("a")
        store.put(["c"], THIRD)
        assert len(list(tmp_path.iterdir())) == 1
        assert store.get("a") is FIRST
        assert store.get("c") is THIRD
        back = store.get("b")
        assert back is not SECOND
        assert same(back, SECOND)
        assert store.get("b") is back
        assert len(store) == 3
        assert len(list(tmp_path.iterdir())) == 1

    def test_the_newest_stays_however_large(self, make_store: Callable[..., Store]) -> None:
        store = make_store(memory=1, files=1)
        store.put(["a"], FIRST)
        assert store.get("a") is FIRST

    def test_beyond_the_files_the_oldest_is_lost(
        self, make_store: Callable[..., Store], tmp_path: Path
    ) -> None:
        store = make_store(memory=1, files=SIZE + SIZE // 2)
        for name, made in (("a", FIRST), ("b", SECOND), ("c", THIRD)):
            store.put([name], made)
        assert store.get("a") is None
        assert len(store) == 2
        assert same(store.get("b"), SECOND)
        assert len(list(tmp_path.iterdir())) == 1

    def test_a_deleted_file(self, make_store: Callable[..., Store], tmp_path: Path) -> None:
        """The host may empty its temporary folder: the recording is gone."""
        store = make_store(memory=1)
        store.put(["a"], FIRST)
        store.put(["b"], SECOND)
        for file in tmp_path.iterdir():
            file.unlink()
        assert store.get("a") is None
        assert len(store) == 1

    @pytest.mark.fault(
        "The file of an older recording is damaged, or ComfyUI's temporary folder emptied",
        "It is not there: Collect Attribution says so",
        "The older recording",
    )
    def test_a_damaged_file(self, make_store: Callable[..., Store], tmp_path: Path) -> None:
        store = make_store(memory=1)
        store.put(["a"], FIRST)
        store.put(["b"], SECOND)
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes()[:-100])
        assert store.get("a") is None
        assert store.get("b") is SECOND

    @pytest.mark.parametrize("fault", ["no folder", "no disk"])
    def test_no_place_for_files(self, tmp_path: Path, fault: str) -> None:
        """The older recording is lost, the newer one is not, and nothing raises."""

        def folder() -> Path:
            if fault == "no disk":
                raise OSError("no space left on device")
            return tmp_path / "missing"

        store = Store(1, 2**30, folder)
        store.put(["a"], FIRST)
        store.put(["b"], SECOND)
        assert store.get("a") is None
        assert store.get("b") is SECOND
        assert len(store) == 1

    def test_clear(self, make_store: Callable[..., Store], tmp_path: Path) -> None:
        store = make_store(memory=1)
        store.put(["a"], FIRST)
        store.put(["b"], SECOND)
        store.clear()
        assert len(store) == 0
        assert store.get("b") is None
        assert not list(tmp_path.iterdir())
