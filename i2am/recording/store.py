"""A latent → the recording of the run that made it.

Recordings are found by the fingerprint of the sampler's output. Whatever the order of nodes, the
cache or the seed, a latent leads to the recording of exactly the run that made it, or to none.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import I2AMError
from .files import load_recording, save_recording
from .plan import Plan
from .recording import Recording

_log = logging.getLogger(__name__)

# A host may round its latents; each precision leads to the same recording.
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Refusal:
    """A run that could not be recorded, and why: for the node that asks for its recording.

    model, architecture: of the run. fault: what may be shared of an error (`fault_of`), if the
    reason quotes one that is not ours: its message may hold paths or prompts.
    """

    plan: Plan
    reason: str
    model: str = ""
    architecture: str = ""
    fault: str = ""


def fingerprint(latent: Tensor) -> str:
    """A tensor → its fingerprint, which only equal tensors share."""
    data = latent.detach().cpu().contiguous()
    digest = hashlib.blake2b(f"{tuple(data.shape)} {data.dtype}".encode(), digest_size=16)
    digest.update(data.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprints(latent: Tensor) -> tuple[str, ...]:
    """A sampled latent → its fingerprint in each precision a host may round it to."""
    return tuple(fingerprint(latent.to(dtype)) for dtype in _DTYPES)


def item_fingerprints(latents: Sequence[Tensor]) -> tuple[tuple[str, ...], ...]:
    """Latents of one batch → for each item its fingerprints, one for each latent and precision.

    () for a single item: its fingerprints are those of the whole latent.
    """
    if any(latent.is_nested or len(latent) != len(latents[0]) for latent in latents):
        return ()
    batch = len(latents[0]) if latents else 0
    if batch < 2:
        return ()
    names = [[fingerprints(latent[item : item + 1]) for latent in latents] for item in range(batch)]
    return tuple(tuple(dict.fromkeys(sum(own, ()))) for own in names)


class Store:
    """Recordings by fingerprint: the most recently used in memory, the others in files.

    memory_bytes, file_bytes: how much to keep in each. When the files exceed that, the oldest are
    deleted. folder: returns the folder for files; called when one is written.
    """

    def __init__(self, memory_bytes: int, file_bytes: int, folder: Callable[[], Path]) -> None:
        self._memory_bytes = memory_bytes
        self._file_bytes = file_bytes
        self._folder = folder
        self._lock = threading.Lock()
        self._names: dict[str, list[str]] = {}  # fingerprint → ids of its records, newest last
        self._items: dict[str, dict[str, int]] = {}  # an item's → id of its batch → its number
        self._plans: dict[str, Plan] = {}
        self._memory: OrderedDict[str, Recording | Refusal] = OrderedDict()
        self._files: OrderedDict[str, Path] = OrderedDict()

    def put(
        self,
        names: Iterable[str],
        record: Recording | Refusal,
        items: Sequence[Iterable[str]] = (),
        plan: Plan | None = None,
    ) -> None:
        """Keep a record under the fingerprints of the latents that its run made.

        It replaces an earlier record of the same run with the same plan. items: for a batch, the
        fingerprints of each item's own latents. plan: the plan to find the record by, as it was
        given; by default the record's own.
        """
        if plan is None:
            plan = record.plan if isinstance(record, Refusal) else record.header.plan
        with self._lock:
            identity = uuid.uuid4().hex
            self._memory[identity] = record
            self._plans[identity] = plan
            for name in dict.fromkeys(names):  # output and denoised output are often equal
                for replaced in [i for i in self._names.get(name, []) if self._plans[i] == plan]:
                    self._forget(replaced)
                self._names.setdefault(name, []).append(identity)
            for number, own in enumerate(items):
                for name in own:
                    # Equal latents in one batch were sampled the same way: keep the first.
                    self._items.setdefault(name, {}).setdefault(identity, number)
            self._make_room()

    def get(self, name: str, plans: Sequence[Plan] = ()) -> Recording | Refusal | None:
        """A latent's fingerprint → the record of the run that made it, or None.

        Recording does not change a latent, so runs with different plans can make the same one.
        plans: the plans to look for, the likeliest first; if empty, the newest record is returned.
        """
        with self._lock:
            matches = self._names.get(name, [])[::-1]
            if plans:
                matches = [i for plan in plans for i in matches if self._plans[i] == plan]
            return self._fetch(matches[0]) if matches else None

    def get_items(
        self, names: Sequence[str], plans: Sequence[Plan] = ()
    ) -> tuple[Recording | Refusal | None, tuple[int, ...]]:
        """Single latents → the record of the run that sampled them in one batch, and their numbers.

        names: the fingerprint of each latent alone. plans: as in `get`. Numbers count from 0.
        Returns (None, ()) if there is no such run.
        """
        with self._lock:
            found = [self._items.get(name, {}) for name in names]
            shared = [i for i in self._plans if found and all(i in one for one in found)][::-1]
            if plans:
                shared = [i for plan in plans for i in shared if self._plans[i] == plan]
            if not shared:
                return None, ()
            numbers = tuple(one[shared[0]] for one in found)
            record = self._fetch(shared[0])
            return (None, ()) if record is None else (record, numbers)

    def __len__(self) -> int:
        return len(self._plans)

    def clear(self) -> None:
        """Forget everything, files included."""
        with self._lock:
            for identity in list(self._plans):
                self._forget(identity)

    def _fetch(self, identity: str) -> Recording | Refusal | None:
        """A record, loaded into memory if it is in a file; None if that is gone or damaged."""
        if identity in self._memory:
            self._memory.move_to_end(identity)
            return self._memory[identity]
        path = self._files.get(identity)
        try:
            record = load_recording(path) if path is not None else None
        except (OSError, I2AMError):  # the host may empty its temporary folder at any time
            record = None
        if record is None:
            self._forget(identity)
            return None
        _remove(self._files.pop(identity))
        self._memory[identity] = record
        self._make_room()
        return record

    def _make_room(self) -> None:
        """Move the least recently used records to files, then delete the oldest files."""
        while len(self._memory) > 1 and self._bytes_in_memory() > self._memory_bytes:
            identity, record = self._memory.popitem(last=False)
            if isinstance(record, Refusal):
                self._forget(identity)
                continue
            try:
                path = self._folder() / f"i2am_recording_{identity}.safetensors"
                save_recording(path, record)
            except OSError as error:
                _log.warning("I2AM: an older recording could not be kept on disk: %s", error)
                self._forget(identity)
                continue
            self._files[identity] = path
        while self._files and self._bytes_in_files() > self._file_bytes:
            self._forget(next(iter(self._files)))

    def _bytes_in_memory(self) -> int:
        return sum(r.bytes for r in self._memory.values() if isinstance(r, Recording))

    def _bytes_in_files(self) -> int:
        return sum(map(_size, self._files.values()))

    def _forget(self, identity: str) -> None:
        self._memory.pop(identity, None)
        self._plans.pop(identity, None)
        path = self._files.pop(identity, None)
        if path is not None:
            _remove(path)
        for name, identities in list(self._names.items()):
            if identity in identities:
                identities.remove(identity)
                if not identities:
                    del self._names[name]
        for name, numbers in list(self._items.items()):
            if numbers.pop(identity, None) is not None and not numbers:
                del self._items[name]


def _size(path: Path) -> int:
    """The bytes of a file; 0 if the host has deleted it."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _remove(path: Path) -> None:
    """Delete a file; keep it if it cannot be deleted."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
