"""The token store: clips as tokens, made once by a tokenizer, read at random by everything that trains or evaluates.

A store is a folder of Arrow shards (`datasets` opens them too) and store.json, which lists the finished shards with
their checksums, the tokenizer's fingerprint, and the clips that could not be read. A shard is written under another
name, then renamed, then listed: whatever kills a build, at any moment, loses the shard in work and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from auditory_sentences.clip import Clip
from codec.audio import audio_length, load_audio
from codec.errors import UserError
from codec.tokenizer import AudioTokenizer
from codec.tokens import NUM_CODEBOOKS, SAMPLE_RATE, AudioTokens

FORMAT = 1  # of the folder; another one is not read
MANIFEST = "store.json"
_CLIP_FIELDS = tuple(f.name for f in fields(Clip))


@dataclass(frozen=True, eq=False)
class StoredClip(Clip):
    """A clip with its tokens."""

    tokens: AudioTokens | None = None  # never None; fields after defaults need one


@dataclass(frozen=True)
class Failure:
    """A clip that is not in the store, and why."""

    id: str
    path: str
    reason: str


class TokenStore:
    """A finished store: `store[i]` is a StoredClip, in the order in which the clips were given.

    Raises UserError where the folder holds no finished store, or a shard is missing or of another size.
    Only what is read is in memory: the shards are mapped. A store may be pickled to, and opened in, other processes.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        manifest = _read_manifest(self.folder)
        if manifest is None:
            raise UserError(f"{self.folder}: holds no token store ({MANIFEST}); build one with `uniaudio corpus store`")
        self._manifest = manifest
        shards = manifest["shards"]
        if None in shards:
            raise UserError(
                f"{self.folder}: {shards.count(None)} of {len(shards)} shards of the token store are not built yet; "
                "run the command that builds it again, it goes on where it was interrupted"
            )
        for shard in shards:
            path = self.folder / shard["file"]
            if not path.is_file() or path.stat().st_size != shard["bytes"]:
                raise UserError(f"{path}: missing, or not as long as {MANIFEST} says; build the store again")
        self._ends = list(accumulate(shard["clips"] for shard in shards))

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return TokenStore, (self.folder,)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> StoredClip:
        """Raises IndexError outside [-len, len)."""
        table, row = self._locate(index)
        num_samples = table["num_samples"][row].as_py()
        ids = {}
        for name in ("descriptive", "structural"):
            flat = torch.tensor(table[name][row].values.to_numpy(), dtype=torch.int64)  # (8 * T,)
            ids[name] = flat.view(NUM_CODEBOOKS, -1)
        tokens = AudioTokens(ids["descriptive"], ids["structural"], num_samples, self.fingerprint)
        return StoredClip(**_clip_values(table, row), tokens=tokens)

    def __iter__(self) -> Iterator[StoredClip]:
        return (self[i] for i in range(len(self)))

    @property
    def fingerprint(self) -> str:
        """Of the tokenizer that made the tokens."""
        return self._manifest["fingerprint"]

    @property
    def failures(self) -> tuple[Failure, ...]:
        return tuple(Failure(**failure) for shard in self._manifest["shards"] for failure in shard["failures"])

    @property
    def seconds(self) -> float:
        """Length of all clips together."""
        return sum(shard["samples"] for shard in self._manifest["shards"]) / SAMPLE_RATE

    @property
    def data_hash(self) -> str:
        """Identity of the contents: hash of the shards' checksums, 16 hexadecimal digits."""
        sums = "".join(shard["sha256"] for shard in self._manifest["shards"])
        return hashlib.sha256(sums.encode()).hexdigest()[:16]

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        """The records of all clips, without tokens, in the store's order."""
        return tuple(Clip(**_clip_values(table, row)) for table in self._tables for row in range(table.num_rows))

    @cached_property
    def num_samples(self) -> tuple[int, ...]:
        """Length of each clip at 24 kHz: what a sentence will need is known without reading tokens."""
        return tuple(n for table in self._tables for n in table["num_samples"].to_pylist())

    @cached_property
    def _index_of(self) -> dict[str, int]:
        return {clip.id: i for i, clip in enumerate(self.clips)}

    def index_of(self, clip_id: str) -> int:
        """Where the clip of that id is. Raises UserError where it is not."""
        if clip_id not in self._index_of:
            raise UserError(f"{self.folder}: holds no clip {clip_id!r}; `uniaudio corpus show` lists what a corpus has")
        return self._index_of[clip_id]

    def select(self, **wanted: str) -> list[int]:
        """Positions of the clips that agree in every field or label named: select(split="test", instrument="piano")."""

        def agrees(clip: Clip) -> bool:
            return all((getattr(clip, k) if k in _CLIP_FIELDS else clip.labels.get(k)) == v for k, v in wanted.items())

        return [i for i, clip in enumerate(self.clips) if agrees(clip)]

    def verify(self) -> None:
        """Read every shard and compare its checksum. Raises UserError that names the damaged one."""
        for shard in self._manifest["shards"]:
            if _sha256(self.folder / shard["file"]) != shard["sha256"]:
                raise UserError(f"{self.folder / shard['file']}: damaged (checksum differs); build the store again")

    @cached_property
    def _tables(self) -> list[Any]:
        from datasets import Dataset

        return [Dataset.from_file(str(self.folder / shard["file"])).data.table for shard in self._manifest["shards"]]

    def _locate(self, index: int) -> tuple[Any, int]:
        """(Arrow table, row) of a position."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of a token store of {len(self)}")
        index %= len(self)
        shard = bisect_right(self._ends, index)
        return self._tables[shard], index - (self._ends[shard - 1] if shard else 0)


def build_store(
    clips: Iterable[Clip],
    tokenizer: AudioTokenizer,
    folder: str | Path,
    *,
    shard_clips: int = 512,
    batch_seconds: float = 120.0,
    max_seconds: float = 300.0,
    strict: bool = False,
) -> TokenStore:
    """Tokenise the clips into `folder`, go on with an interrupted build, or open a finished one.

    shard_clips: clips between two points that a kill cannot undo
    batch_seconds: sound encoded at once, padding included; batches hold clips of similar length. A tokenizer gives a
        clip the same tokens in any batch, so this changes speed and memory only
    max_seconds: longer clips are not stored (cut long recordings into clips of one group)
    strict: a clip that cannot be read raises UserError at once, instead of being listed at the end

    Clips that could not be read before are tried again. Raises UserError where the folder holds a store of other clips
    or of another tokenizer, and where no clip at all could be read.
    """
    clips, folder = list(clips), Path(folder)
    manifest = _open_build(folder, clips, tokenizer.fingerprint, shard_clips)
    columns = TextColumn("[progress.description]{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task("token store", total=len(clips))
        for number, shard in enumerate(manifest["shards"]):
            members = clips[number * shard_clips : (number + 1) * shard_clips]
            if shard is None or any(_readable(failure["path"], max_seconds) for failure in shard["failures"]):
                name = f"shard-{number:05d}.arrow"
                advance = partial(progress.advance, bar)
                manifest["shards"][number] = _build_shard(
                    folder / name, members, tokenizer, batch_seconds, max_seconds, strict, advance
                )
                _write_manifest(folder, manifest)
            else:
                progress.advance(bar, len(members))
    store = TokenStore(folder)
    _summarise(store, len(clips))
    return store


def _build_shard(
    path: Path,
    clips: Sequence[Clip],
    tokenizer: AudioTokenizer,
    batch_seconds: float,
    max_seconds: float,
    strict: bool,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Write one shard and return its entry in the manifest. `advance` is told how many clips are done."""
    lengths: dict[int, int] = {}  # position in the shard -> samples
    failures: dict[int, str] = {}  # position in the shard -> reason
    tokens: dict[int, AudioTokens] = {}
    for i, clip in enumerate(clips):
        try:
            lengths[i] = _checked_length(clip.path, max_seconds)
        except UserError as error:
            failures[i] = str(error)
    advance(len(failures))
    for done, unread in _encoded(clips, _batches(lengths, batch_seconds), tokenizer):
        tokens |= done
        failures |= unread
        advance(len(done) + len(unread))
        if failures and strict:
            break
    if failures and strict:
        raise UserError(f"{next(iter(failures.values()))} (strict: the token store was not finished)")
    rows = [_row(clips[i], tokens[i]) for i in sorted(tokens)]
    _write_shard(path, rows)
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": _sha256(path),
        "clips": len(rows),
        "samples": sum(row["num_samples"] for row in rows),
        "failures": [asdict(Failure(clips[i].id, clips[i].path, reason)) for i, reason in sorted(failures.items())],
    }


def _batches(lengths: dict[int, int], batch_seconds: float) -> list[list[int]]:
    """Positions in batches of similar length, longest first, each at most `batch_seconds` with its padding."""
    batches: list[list[int]] = []
    for i in sorted(lengths, key=lambda i: -lengths[i]):
        longest = lengths[batches[-1][0]] if batches else 0
        if batches and longest * (len(batches[-1]) + 1) <= batch_seconds * SAMPLE_RATE:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def _encoded(
    clips: Sequence[Clip], batches: list[list[int]], tokenizer: AudioTokenizer
) -> Iterator[tuple[dict[int, AudioTokens], dict[int, str]]]:
    """Tokens of each batch, and the reasons for the clips that could not be read.

    Two batches at once, each on one thread: several threads on one batch mostly wait for each other, and more than two
    batches for Python's lock: on four cores, 7,191 clips took 68 s with two, 78 with three, 102 with four. On a GPU
    one is read while another is encoded.
    """
    device = next((p.device for p in tokenizer.parameters()), torch.device("cpu"))
    threads = torch.get_num_threads()
    workers = 1 if device.type == "cpu" and threads == 1 else 2

    def one(batch: list[int]) -> tuple[dict[int, AudioTokens], dict[int, str]]:
        waves, unread = _load(clips, batch)
        return dict(zip(waves, _encode(tokenizer, list(waves.values()), device), strict=True)), unread

    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            waiting: deque[Future] = deque()
            for batch in batches:
                waiting.append(pool.submit(one, batch))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)


def _load(clips: Sequence[Clip], batch: Sequence[int]) -> tuple[dict[int, Tensor], dict[int, str]]:
    """Waveforms of a batch, and the reasons for those that could not be read."""
    waves, unread = {}, {}
    for i in batch:
        try:
            waves[i] = load_audio(clips[i].path)
        except UserError as error:
            unread[i] = str(error)
    return waves, unread


@torch.inference_mode()
def _encode(tokenizer: AudioTokenizer, waves: list[Tensor], device: torch.device) -> list[AudioTokens]:
    if not waves:
        return []
    lengths = torch.tensor([len(wave) for wave in waves], device=device)  # (B,)
    padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True).to(device)  # (B, n)
    return tokenizer.encode(padded, lengths)


def _checked_length(path: str, max_seconds: float) -> int:
    length = audio_length(path)
    if length > max_seconds * SAMPLE_RATE:
        raise UserError(
            f"{path}: {length / SAMPLE_RATE:.0f} s are more than the {max_seconds:.0f} s of a clip; cut it into clips"
        )
    return length


def _readable(path: str, max_seconds: float) -> bool:
    try:
        _checked_length(path, max_seconds)
        load_audio(path)
    except UserError:
        return False
    return True


# ---- what is on disk ---------------------------------------------------------------------------------------------


def _row(clip: Clip, tokens: AudioTokens) -> dict[str, Any]:
    return {
        **asdict(clip),
        "labels": json.dumps(clip.labels),
        "parts": json.dumps(clip.parts),
        "num_samples": tokens.num_samples,
        "descriptive": tokens.descriptive.flatten().tolist(),
        "structural": tokens.structural.flatten().tolist(),
    }


def _clip_values(table: Any, row: int) -> dict[str, Any]:
    values = {name: table[name][row].as_py() for name in _CLIP_FIELDS}
    return values | {"labels": json.loads(values["labels"]), "parts": tuple(json.loads(values["parts"]))}


def _write_shard(path: Path, rows: list[dict[str, Any]]) -> None:
    from datasets import Features, List, Value
    from datasets.arrow_writer import ArrowWriter

    text = {name: Value("string") for name in _CLIP_FIELDS}
    ids = {"descriptive": List(Value("int32")), "structural": List(Value("int32"))}
    features = Features(text | {"position": Value("int64"), "num_samples": Value("int64")} | ids)
    temporary = path.with_name(f"{path.name}.tmp")
    with ArrowWriter(path=str(temporary), features=features) as writer:
        for row in rows:
            writer.write(row)
        writer.finalize()
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _open_build(folder: Path, clips: list[Clip], fingerprint: str, shard_clips: int) -> dict[str, Any]:
    """The manifest to go on from; its shards are None where they are still to be built."""
    if not clips:
        raise UserError(f"{folder}: there is no clip to tokenise; check the corpora")
    wanted = hashlib.sha256("\n".join(clip.to_json() for clip in clips).encode()).hexdigest()[:16]
    manifest = _read_manifest(folder)
    if manifest is None:
        folder.mkdir(parents=True, exist_ok=True)
        shards = -(-len(clips) // shard_clips)
        manifest = {
            "format": FORMAT, "fingerprint": fingerprint, "clips_hash": wanted, "clips": len(clips),
            "shard_clips": shard_clips, "shards": [None] * shards,
        }  # fmt: skip
        _write_manifest(folder, manifest)
    if manifest["fingerprint"] != fingerprint:
        raise UserError(
            f"{folder}: holds tokens of the tokenizer {manifest['fingerprint']}, but the tokenizer given is "
            f"{fingerprint}; choose another folder or delete this one"
        )
    if manifest["clips_hash"] != wanted or manifest["shard_clips"] != shard_clips:
        raise UserError(
            f"{folder}: is the store of {manifest['clips']} other clips (hash {manifest['clips_hash']} in shards of "
            f"{manifest['shard_clips']}; given are {len(clips)}, hash {wanted}, shards of {shard_clips}); "
            "choose another folder or delete this one"
        )
    for number, shard in enumerate(manifest["shards"]):
        if shard and not ((folder / shard["file"]).is_file() and _sha256(folder / shard["file"]) == shard["sha256"]):
            manifest["shards"][number] = None  # damaged or lost: built again
    return manifest


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["format"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged or not of a token store ({error}); delete {folder} and rebuild") from error
    if found != FORMAT:
        raise UserError(f"{path}: a token store of format {found}, this version reads {FORMAT}; delete it and rebuild")
    return manifest


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    temporary = folder / f"{MANIFEST}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _summarise(store: TokenStore, given: int) -> None:
    """Say what was left out, by name."""
    failures = store.failures
    if len(failures) == given:
        raise UserError(f"{store.folder}: none of the {given} clips could be read; the first: {failures[0].reason}")
    if failures:
        console = Console(stderr=True, soft_wrap=True)
        console.print(f"{store.folder}: {len(failures)} of {given} clips could not be read and are not in the store:")
        for failure in failures:
            console.print(f"  {failure.id}: {failure.reason}", markup=False, highlight=False)
