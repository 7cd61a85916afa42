"""Run a suite of evaluation tasks.

    python evaluation/run_suite.py --model PATH --suite starter few_shot --shots 0 1 4 --limit 40 --out DIR

Writes results.json, results.md, report.html, samples.jsonl and audio/ into DIR. All that a model said, a codec decoded
or a judge heard is kept in DIR/cache under a key of what it depends on: run again, and nothing is computed twice.
"""

# Judges run in processes that import this file first: what is heavy is imported inside the functions.
from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__" and not __package__:  # started as a file: Python looks beside it, not in the repository
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from codec.io.errors import UserError  # noqa: E402
from codec.io.locks import locked  # noqa: E402
from codec.io.terminal import run_program, say, shown  # noqa: E402
from evaluation.options import (  # noqa: E402
    LIMIT,
    UNTRAINED_LIMIT,
    check_model,
    check_numbers,
    check_places,
    find_device,
    parse_options,
)

if TYPE_CHECKING:
    from evaluation.cache import Cache
    from evaluation.items import Questions
    from evaluation.results_folder import ResultsFolder
    from evaluation.runner import CodecRunner, ModelRunner
    from evaluation.task import Suite, Task


def run(
    model: str | Path | None = None,
    suite: str | Path | Sequence[str | Path] = "starter",
    shots: Sequence[int] | None = None,
    limit: int | None = LIMIT,
    out: str | Path = "runs/evaluation",
    store: str | Path | Sequence[str | Path] | None = None,
    corpora: Sequence[str | Path] = (),
    codec: str | Path | None = None,
    untrained: str | Path | None = None,
    untrained_limit: int = UNTRAINED_LIMIT,
    seed: int = 0,
    processes: int = 0,
    device: str | None = None,
    force: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Evaluate and write everything into the folder `out`; returns what results.json holds.

    model: folder or hub id of a model; None for suites of reconstruction tasks alone, which need `codec`
    suite: names in evaluation/suites, or YAML files; shots: None for all that the tasks list
    limit: items per task, None for all
    out: a folder that holds nothing, or the same evaluation, begun or finished; force: or another evaluation, whose
        results are replaced
    store: token store or stores, None for what the recipe in the model's run folder names
    corpora: where the recordings are (folders or YAML files): with a store, if they have moved since it was built;
        without one, for reconstruction tasks
    codec: another codec for reconstruction tasks than the model's own
    untrained: output folder of an earlier run whose cached outputs may be used
    untrained_limit: items that the untrained model answers, 0 for no untrained model
    processes: of judges, 0 for all cores up to four; device: None for a GPU where there is one
    Raises UserError for anything that a person has to put right; nothing has been written then, unless the cache of a
    run that had begun. Tasks that this store or model cannot do are left out, and named in the results; UserError where
    that is all of them.
    """
    from evaluation.task import load_suites

    check_numbers(shots=shots, limit=limit, untrained_limit=untrained_limit, seed=seed, processes=processes)
    check_places(model=model, suite=suite, out=out, store=store, corpus=corpora, codec=codec, untrained=untrained)
    suites, tasks = load_suites([suite] if isinstance(suite, str | Path) else suite)
    jobs = [(task, k) for task in tasks for k in task.shots if shots is None or k in shots]
    if not jobs:
        listed = sorted({k for task in tasks for k in task.shots})
        raise UserError(f"no task of the suite is meant for shots {list(shots or ())}; its tasks know {listed}")
    if model is None and (codec is None or not all(task.is_reconstruction for task in tasks)):
        raise UserError(
            "give a model (--model), or a codec (--codec) and a suite of reconstruction tasks such as codec"
        )
    check_model(model)
    settings = {
        "shots": sorted({k for _, k in jobs}), "limit": limit, "untrained_limit": untrained_limit, "seed": seed,
    }  # fmt: skip
    device, out = find_device(device), Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; give a folder with --out")
    with locked(out, "an evaluation"):
        from evaluation.cache import Cache
        from evaluation.results_folder import CACHE, ResultsFolder, identity_of

        folder = ResultsFolder(out, force)
        identity = identity_of([s.suite for s in suites], [(t.task, k, t.fingerprint) for t, k in jobs], settings)
        folder.require_same(identity)
        cache = Cache(out / CACHE, [Path(untrained) / CACHE] if untrained else [])
        questions = _questions(model, store, corpora, tasks, seed)
        _require_some(questions, tasks)
        respondents = _Respondents(model, codec, tasks, cache, seed, device, untrained_limit)
        return _run(folder, suites, jobs, settings, cache, questions, respondents, processes, _Progress(quiet))


def _run(
    folder: ResultsFolder, suites: Sequence[Suite], jobs: Sequence[tuple[Task, int]], settings: dict[str, Any],
    cache: Cache, questions: Questions, respondents: _Respondents, processes: int, progress: _Progress,
) -> dict[str, Any]:  # fmt: skip
    """Evaluate with everything loaded, into a folder that is held."""
    from evaluation.judges.pool import Judges
    from evaluation.report.write import write_report
    from evaluation.results_folder import REPORT, identity_of_parts
    from evaluation.scoring import Scorer
    from evaluation.task_run import evaluate_task

    began, parts = time.monotonic(), _parts(respondents, questions)
    folder.require_same(identity_of_parts(parts))
    folder.clean()
    cache.clean()
    results: list[dict[str, Any]] = []
    with Judges(cache, processes) as judges:
        scorer = Scorer(questions, judges)
        for number, (task, k) in enumerate(jobs, 1):
            progress.say(f"[{number}/{len(jobs)}] {task.title}, {k} shot{'s' * (k != 1)} ...")
            started = time.monotonic()
            who = respondents.of(task)
            results.append(
                evaluate_task(
                    task, k, questions, scorer, *who, settings["limit"], settings["untrained_limit"], folder.folder
                )
            )
            results[-1]["seconds"] = round(time.monotonic() - started, 1)
            progress.say("      " + _one_line(results[-1]))
    skipped = [result for result in results if "skipped" in result]
    if len(skipped) == len(results):
        raise UserError(f"nothing could be evaluated: {_reasons(skipped)}")
    head = {
        "format": 1, "suites": [asdict(s) for s in suites], "settings": settings,
        "seconds": round(time.monotonic() - began, 1), "cache": {"hits": cache.hits, "misses": cache.misses},
    }  # fmt: skip
    sounds = [sample["audio"] for result in results for sample in result.get("samples", []) if "audio" in sample]
    written = write_report(head | parts | {"tasks": results}, folder.folder)
    folder.drop_old_sounds(sounds)
    if cache.damaged:
        warnings.warn(f"{cache.folder}: {cache.damaged} damaged outputs were made again", stacklevel=3)
    if skipped:
        warnings.warn(
            f"{len(skipped)} of {len(results)} tasks could not be evaluated: {_reasons(skipped)}", stacklevel=3
        )
    progress.say(
        f"{folder.folder / REPORT}: {head['seconds']:.0f} s, {cache.misses} outputs made, {cache.hits} from the cache"
    )
    return written


def _require_some(questions: Questions, tasks: Sequence[Task]) -> None:
    """Raise UserError where no task finds clips: to be asked before a model is loaded."""
    skipped = []
    for task in tasks:
        try:
            questions.places(task, 1)
            return
        except UserError as error:
            skipped.append({"task": task.task, "skipped": str(error)})
    raise UserError(f"nothing could be evaluated: {_reasons(skipped)}")


def _reasons(skipped: Sequence[dict[str, Any]]) -> str:
    """Every reason once, with the tasks that it holds for, a few of them at most."""
    tasks: dict[str, list[str]] = {}
    for result in skipped:
        named = tasks.setdefault(result["skipped"], [])
        if result["task"] not in named:
            named.append(result["task"])
    said = [reason if names[0] in reason else f"{', '.join(names)}: {reason}" for reason, names in tasks.items()]
    return "; ".join(said[:3]) + (f"; and {len(said) - 3} more reasons" if len(said) > 3 else "")


class _Progress:
    """Lines about how far it is; nobody has to read them: the results are in files."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet

    def say(self, line: str) -> None:
        if not self._quiet:
            try:
                say(line)
            except BrokenPipeError:
                self._quiet = True


class _Respondents:
    """Who answers: the model, the same untrained, and their codecs. Made when first needed."""

    def __init__(self, model, codec, tasks: Sequence[Task], cache, seed: int, device: str, untrained_limit: int):
        from transformers.utils import logging

        from codec.tokenizer import load_tokenizer
        from evaluation.runner import CodecRunner, ModelRunner
        from uniaudio.model import UniAudio

        logging.disable_progress_bar()
        self.model_source, self.codec_source = model, codec
        uniaudio = UniAudio.from_pretrained(model, device) if model is not None else None
        self.model = ModelRunner.trained(uniaudio, cache, seed) if uniaudio else None
        self.model_untrained = ModelRunner.untrained(uniaudio, cache, seed) if uniaudio else None
        self.codec = CodecRunner(load_tokenizer(codec).to(device) if codec else uniaudio.codec, cache)
        needed = untrained_limit > 0 and any(task.is_reconstruction for task in tasks)
        self.codec_untrained = CodecRunner.untrained(self.codec.codec, cache, seed) if needed else None

    def of(self, task: Task) -> tuple[ModelRunner | CodecRunner, ModelRunner | CodecRunner | None]:
        """Trained and untrained respondent of a task."""
        if task.is_reconstruction:
            return self.codec, self.codec_untrained
        return self.model, self.model_untrained


def _questions(model, store, corpora, tasks: Sequence[Task], seed: int) -> Questions:
    from auditory_sentences.token_store import open_stores
    from codec.io.hub import local_folder
    from evaluation.items import Questions
    from evaluation.recordings import Recordings, Relocated
    from uniaudio.release_prompts import bank_of

    if store is None and corpora and all(task.is_reconstruction for task in tasks):
        return Questions(Recordings(corpora), seed)
    found = open_stores(_stores_of(model) if store is None else store)
    bank = bank_of(local_folder(model, "model", option="--model")) if model is not None else None
    return Questions(Relocated(found, corpora) if corpora else found, seed, bank)


def _stores_of(model) -> list[str]:
    """The token store, or stores, that a model was trained on, from the recipe in its run's folder."""
    from codec.io.reading import read_yaml

    if model is None:
        raise UserError("give recordings (--corpus) or a token store (--store)")
    if not Path(model).is_dir():
        raise UserError(
            f"{model}: no such folder; give another model (--model), and with one of the hub a store (--store)"
        )
    real = Path(model).resolve()  # RUN/model is a link to RUN/checkpoints/STEP/model
    recipe = next((path for path in (parent / "recipe.yaml" for parent in real.parents[:3]) if path.is_file()), None)
    if recipe is None:
        raise UserError(f"{model}: no recipe.yaml near it, so it names no token store; give one (--store)")
    store = read_yaml(recipe).get("store")
    named = [store] if isinstance(store, str) else store
    if not named or not isinstance(named, list) or not all(isinstance(name, str) and name for name in named):
        raise UserError(f"{recipe}: names no token store but {shown(store)}; give one (--store)")
    for path in named:
        if not Path(path).is_dir():
            raise UserError(f"{path}: the token store that {recipe} names is not there; say where it is with --store")
    return named


def _parts(respondents: _Respondents, questions: Questions) -> dict[str, Any]:
    """What was evaluated, on what, with which versions: a part of results.json."""
    from evaluation.provenance import measured_with

    who = {}
    if respondents.model:
        weights = respondents.model.uniaudio.model.num_parameters()
        who["model"] = {
            "source": str(respondents.model_source), "fingerprint": respondents.model.fingerprint, "parameters": weights
        }  # fmt: skip
        who["untrained"] = {"fingerprint": respondents.model_untrained.fingerprint}
    codec = respondents.codec.codec
    who["codec"] = {
        "source": str(respondents.codec_source or respondents.model_source), "fingerprint": codec.fingerprint,
        "decoding": respondents.codec.speaker.decoding, "parameters": sum(p.numel() for p in codec.parameters()),
    }  # fmt: skip
    store = questions.store
    who["data"] = {
        "token_store": store.name, "fingerprint": store.fingerprint, "hash": store.data_hash, "clips": len(store.clips),
    }  # fmt: skip
    return who | measured_with()


def _one_line(entry: dict[str, Any]) -> str:
    from evaluation.report.write import shown

    if "skipped" in entry:
        return f"skipped: {entry['skipped']}"
    parts = [
        f"{score['name']} {shown(score, score)} (chance {shown(score, score['chance'])})" for score in entry["scores"]
    ]
    return f"{', '.join(parts)}; n {entry['n']}; {entry['seconds']} s"


def evaluate(arguments: Sequence[str], program: str) -> None:
    """Run what a command line asks for. Raises UserError as `run` does; `program` is what usage lines call it."""
    run(**parse_options(arguments, program))


def main() -> None:
    """The command line. Exit status: 0 done, 2 something a person has to put right, 130 Ctrl-C."""
    run_program("run_suite", lambda: evaluate(sys.argv[1:], "run_suite.py"))


if __name__ == "__main__":
    main()
