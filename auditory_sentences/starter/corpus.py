"""The starter corpus as a folder: made by several processes, continued after a kill, mended where it lost a file.

    clips.jsonl      the clips
    audio/*.flac     24 kHz mono, 16 bit
    audio.sha256     a hash of every sound file, as `sha256sum -c` reads it
    phones.jsonl     when each phone of the speech is spoken (auditory_sentences/corpora/phones.py)
    manifest.json    seed and size of the corpus, and the hashes of the three lists; it is there when all is

Jobs are done in batches. A batch counts as done when its list of clips is in parts/, and a corpus as complete when each
of its sound files has the content that its list says. The number of processes changes nothing. A corpus from before
there were phone times gets them when it is asked for again: the clips are rendered once more, and only timed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from auditory_sentences.corpora.phones import PHONES_FILE, phones_line
from auditory_sentences.starter.jobs import DEMO, SPOKEN, plan, render
from auditory_sentences.starter.rendering import Job, StarterSize
from auditory_sentences.starter.voices import SAMPLE_RATE
from codec.io.errors import UserError
from codec.io.files import remove_leftovers, replace_file, sha256_of, write_text
from codec.io.locks import LOCK_FILE, locked
from codec.io.numbers import LARGEST
from codec.io.reading import read_json
from codec.io.terminal import shown
from codec.io.workers import die_with_parent

VERSION = 1  # of what a seed means; a corpus of another version is not continued
_BATCH = 32  # jobs between two marks of progress
_MOST_PROCESSES = 256
_NO_HASH = 64 * "0"  # of a sound file that is not written


def synthesise(folder: str | Path, seed: int = 0, size: StarterSize = DEMO, processes: int = 4) -> Path:
    """Write the starter corpus.

    Does nothing where it is already complete, resumes where it was interrupted, and makes sound files again that are
    lost or damaged, with a warning.

    Args:
        folder: Of the corpus, which is made.
        seed: Of all that is drawn.
        size: Numbers of clips.
        processes: How many share the work; they change nothing else.

    Returns:
        The folder.

    Raises:
        UserError: The folder holds anything else, a corpus of another seed, size or version too, or another process
            writes to it; a number is out of range.
    """
    folder = Path(folder)
    for name, value, low, high in (("seed", seed, 0, LARGEST), ("processes", processes, 1, _MOST_PROCESSES)):
        if type(value) is not int or not low <= value <= high:
            raise UserError(f"starter corpus: {name} must be a whole number from {low} to {high}, not {shown(value)}")
    wanted = {"version": VERSION, "seed": seed, "size": size.values}
    finished = _check_folder(folder, wanted)
    if finished and not _damaged(folder) and not _leftovers(folder) and _has_phones(folder):
        return folder  # perhaps one that may be read only
    with locked(folder, "the synthesis of a corpus"):
        finished = _check_folder(folder, wanted)
        for place in (folder, folder / "audio", folder / "parts"):
            remove_leftovers(place)
        if not finished:
            write_text(folder / "request.json", json.dumps(wanted))
            _make(folder, seed, size, processes)
        remade = _mend(folder, seed, size)
        timed = finished and not _has_phones(folder)
        if timed:
            _time_phones(folder, seed, size, processes)
        if not finished or remade or timed:
            _write_manifest(folder, wanted)
        shutil.rmtree(folder / "parts", ignore_errors=True)
        (folder / "request.json").unlink(missing_ok=True)
    if finished and remade:
        warnings.warn(
            f"{folder}: {len(remade)} sound files were lost or damaged and are made again, {remade[0]} the first",
            stacklevel=2,
        )
    return folder


def _make(folder: Path, seed: int, size: StarterSize, processes: int) -> None:
    """Have all batches done that are not, and write the lists of clips and of hashes."""
    (folder / "audio").mkdir(exist_ok=True)
    (folder / "parts").mkdir(exist_ok=True)
    parts = _do_batches(folder, "starter corpus", list(plan(size)), seed, size, processes, True)
    lines = [line.split(" ", 1) for part in parts for line in part.read_text(encoding="utf-8").splitlines()]
    write_text(folder / "clips.jsonl", "".join(f"{clip}\n" for _, clip in lines))
    _write_hashes(folder, {json.loads(clip)["path"]: sha256 for sha256, clip in lines})
    _write_phones(folder, parts)


def _time_phones(folder: Path, seed: int, size: StarterSize, processes: int) -> None:
    """Write the phone times of a finished corpus, whose sound files stay as they are."""
    (folder / "parts").mkdir(exist_ok=True)
    spoken = [job for job in plan(size) if job.kind in SPOKEN]
    _write_phones(folder, _do_batches(folder, "phone times", spoken, seed, size, processes, False))


def _do_batches(
    folder: Path, title: str, jobs: Sequence[Job], seed: int, size: StarterSize, processes: int, sounds: bool
) -> list[Path]:
    """Have jobs done in batches, but for those that are done. Returns the batches' lists of clips."""
    batches = [jobs[i : i + _BATCH] for i in range(0, len(jobs), _BATCH)]
    parts = [folder / "parts" / f"{'' if sounds else 'timed-'}{i:05d}.jsonl" for i in range(len(batches))]
    todo = [
        (folder, part, seed, size, batch, sounds)
        for part, batch in zip(parts, batches, strict=True)
        if not _is_done(part)
    ]
    columns = TextColumn("[progress.description]{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task(title, total=len(jobs), completed=len(jobs) - sum(len(batch) for *_, batch, _ in todo))
        for done in _in_processes(todo, processes):
            progress.advance(bar, done)
    return parts


def _render_batch(folder: Path, part: Path, seed: int, size: StarterSize, jobs: Sequence[Job], sounds: bool) -> int:
    """Write the audio of a batch, then its lists: of phones, and of hashes and clips, which says that all is there.

    sounds: write them; if not, there is an empty hash for each
    """
    lines, phones = [], []
    for job in jobs:
        for clip, wave, spoken in render(job, seed, size):
            sha256 = _write_sound(folder / clip.path, wave) if sounds else _NO_HASH
            lines.append(f"{sha256} {clip.to_json()}\n")
            phones += [f"{phones_line(clip.id, spoken)}\n"] if spoken else []
    write_text(_phones_of(part), "".join(phones))
    write_text(part, "".join(lines))
    return len(jobs)


def _phones_of(part: Path) -> Path:
    return part.with_suffix(".phones")


def _write_phones(folder: Path, parts: Sequence[Path]) -> None:
    write_text(folder / PHONES_FILE, "".join(_phones_of(part).read_text(encoding="utf-8") for part in parts))


def _has_phones(folder: Path) -> bool:
    """Whether the phone times of a finished corpus are there, as its manifest says."""
    held = read_json(folder / "manifest.json", "mark of a starter corpus")
    file = folder / PHONES_FILE
    return file.is_file() and sha256_of(file) == held.get("phones_sha256")


def _is_done(part: Path) -> bool:
    """Whether the list of a batch is there, in the form of this version."""
    if not part.exists() or not _phones_of(part).exists():
        return False
    return bool(re.fullmatch(r"([0-9a-f]{64} \{.*\}\n)+", part.read_text(encoding="utf-8")))


def _write_sound(path: Path, wave: np.ndarray) -> str:
    """Write a sound file whole or not at all. wave: (n,) at 24 kHz. Returns the hash of the file."""
    with replace_file(path, durable=False) as temporary:
        soundfile.write(temporary, wave, SAMPLE_RATE, subtype="PCM_16")
        return sha256_of(temporary)


def _in_processes(
    arguments: list[tuple[Path, Path, int, StarterSize, Sequence[Job], bool]], processes: int
) -> Iterator[int]:
    if processes == 1 or len(arguments) <= 1:
        yield from (_render_batch(*a) for a in arguments)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process that runs PyTorch's threads may hang
    workers = min(processes, len(arguments))
    with ProcessPoolExecutor(workers, context, die_with_parent, (os.getpid(),)) as pool:
        futures = [pool.submit(_render_batch, *a) for a in arguments]
        try:
            for future in futures:
                yield future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a process of the synthesis was killed, for want of memory perhaps; "
                "run it again with fewer processes, it resumes where it stopped"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _mend(folder: Path, seed: int, size: StarterSize) -> list[str]:
    """Make the sound files again that are not as the list says. Returns their paths within the folder."""
    damaged = _damaged(folder)
    if not damaged:
        return []
    hashes = _hashes(folder)
    jobs = {job.name: job for job in plan(size)}
    for name in sorted({"-".join(Path(path).stem.split("-")[:3]) for path in damaged}):
        for clip, wave, _ in render(jobs[name], seed, size):
            if clip.path in damaged:
                hashes[clip.path] = _write_sound(folder / clip.path, wave)
    _write_hashes(folder, hashes)  # where another version of the libraries makes other bytes, they are these now
    return damaged


def _damaged(folder: Path) -> list[str]:
    """The sound files, as paths within the folder, that are not there or not as they were written.

    Of a corpus from before there were hashes: those that are not there or empty.
    """
    return [path for path, sha256 in _hashes(folder).items() if not _is_whole(folder / path, sha256)]


def _is_whole(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    return sha256_of(path) == sha256 if sha256 else path.stat().st_size > 0


def _hashes(folder: Path) -> dict[str, str]:
    """Path of every sound file within the folder -> its hash, "" where none was kept."""
    listed = folder / "audio.sha256"
    if listed.exists():
        return {path: sha256 for sha256, path in (line.split("  ", 1) for line in listed.read_text().splitlines())}
    text = (folder / "clips.jsonl").read_text(encoding="utf-8")
    return {json.loads(line)["path"]: "" for line in text.splitlines()}


def _write_hashes(folder: Path, hashes: dict[str, str]) -> None:
    if all(hashes.values()):
        write_text(folder / "audio.sha256", "".join(f"{sha256}  {path}\n" for path, sha256 in hashes.items()))


def _write_manifest(folder: Path, wanted: dict[str, Any]) -> None:
    manifest = wanted | {
        "clips": (folder / "clips.jsonl").read_bytes().count(b"\n"),
        "sha256": sha256_of(folder / "clips.jsonl"),
    }
    if (folder / "audio.sha256").exists():
        manifest["audio_sha256"] = sha256_of(folder / "audio.sha256")
    if (folder / PHONES_FILE).exists():
        manifest["phones_sha256"] = sha256_of(folder / PHONES_FILE)
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1))


def _check_folder(folder: Path, wanted: dict[str, Any]) -> bool:
    """Whether the folder holds the corpus asked for, finished. Raises UserError where it holds anything else."""
    manifest, request = folder / "manifest.json", folder / "request.json"
    found = next((mark for mark in (manifest, request) if mark.exists()), None)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; give a folder to write the corpus to")
    if found is None:
        others = [path.name for path in folder.iterdir() if path.name != LOCK_FILE] if folder.exists() else []
        if others := [name for name in others if not name.startswith(".tmp-")]:
            raise UserError(f"{folder}: holds other files ({shown(others[0])} ...); give a new or an empty folder")
        return False
    held = read_json(found, "mark of a starter corpus", "give another folder")
    if not isinstance(held, dict) or not wanted.keys() <= held.keys():
        raise UserError(f"{folder}: holds something else than a starter corpus (see {found}); give another folder")
    if {key: held[key] for key in wanted} != wanted:
        said = json.dumps({key: held[key] for key in wanted})
        raise UserError(f"{folder}: holds a starter corpus of another seed or size ({said[:200]}); give another folder")
    if found is request:
        return False
    for name, key in (("clips.jsonl", "sha256"), ("audio.sha256", "audio_sha256")):
        if key in held and (not (folder / name).is_file() or sha256_of(folder / name) != held[key]):
            was = "was changed since" if (folder / name).exists() else "is lost"
            raise UserError(f"{folder / name}: {was} the corpus was made; give another folder to make it again")
    return True


def _leftovers(folder: Path) -> bool:
    """Whether a killed process left something in the folder of a finished corpus."""
    return any((folder / name).exists() for name in ("parts", "request.json")) or any(folder.rglob(".tmp-*"))
