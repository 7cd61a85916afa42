"""Run a suite of evaluation tasks.

    python evaluation/run_suite.py --model PATH --suite starter few_shot --shots 0 1 4 --limit 40 --out DIR

Writes results.json, results.md, report.html, samples.jsonl and audio/ into DIR. All that a model said, a codec decoded
or a judge heard is kept in DIR/cache under a key of what it depends on: run again, and nothing is computed twice.
"""

# Judges run in processes that import this file first: what is heavy is imported inside the functions.
from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec.errors import UserError

if TYPE_CHECKING:
    from evaluation.answers import CodecRespondent, ModelRespondent
    from evaluation.items import Questions
    from evaluation.task import Task

LIMIT = 40  # items per task
UNTRAINED_LIMIT = 16  # items that the untrained model is asked: it never says that it has finished, so it is slow


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
    quiet: bool = False,
) -> dict[str, Any]:
    """Evaluate and write everything into the folder `out`; returns what results.json holds.

    model: folder or hub id of a model; None for suites of reconstruction tasks alone, which need `codec`
    suite: names in evaluation/suites, or YAML files; shots: None for all that the tasks list
    limit: items per task, None for all
    store: token store or stores, None for what the recipe in the model's run folder names
    corpora: where the recordings are (folders or YAML files): with a store, if they have moved since it was built;
        without one, for reconstruction tasks
    codec: another codec for reconstruction tasks than the model's own
    untrained: output folder of an earlier run whose cached outputs may be used
    untrained_limit: items that the untrained model answers, 0 for no untrained model
    processes: of judges, 0 for all cores up to four; device: None for a GPU where there is one
    Raises UserError for anything that a person has to put right.
    """
    from evaluation.cache import Cache
    from evaluation.judges import Judges
    from evaluation.report import write_report
    from evaluation.scoring import Scorer
    from evaluation.task import load_suite, load_task
    from evaluation.task_run import evaluate_task

    began, out = time.monotonic(), Path(out)
    suites = [load_suite(name) for name in ([suite] if isinstance(suite, str | Path) else suite)]
    tasks = [load_task(name) for name in dict.fromkeys(name for s in suites for name in s.tasks)]
    if limit is not None and limit < 1:
        raise UserError(f"--limit must be at least 1, not {limit}")
    jobs = [(task, k) for task in tasks for k in task.shots if shots is None or k in shots]
    if not jobs:
        listed = sorted({k for task in tasks for k in task.shots})
        raise UserError(f"no task of the suite is meant for shots {list(shots or ())}; its tasks know {listed}")
    if model is None and (codec is None or not all(task.is_reconstruction for task in tasks)):
        raise UserError(
            "give a model (--model), or a codec (--codec) and a suite of reconstruction tasks such as codec"
        )
    out.mkdir(parents=True, exist_ok=True)
    cache = Cache(out / "cache", [Path(untrained) / "cache"] if untrained else [])
    questions = _questions(model, store, corpora, tasks, seed)
    respondents = _Respondents(model, codec, tasks, cache, seed, device, untrained_limit)

    results: list[dict[str, Any]] = []
    with Judges(cache, processes) as judges:
        scorer = Scorer(questions, judges)
        for number, (task, k) in enumerate(jobs, 1):
            _say(quiet, f"[{number}/{len(jobs)}] {task.title}, {k} shot{'s' * (k != 1)} ...")
            started = time.monotonic()
            results.append(
                evaluate_task(task, k, questions, scorer, *respondents.of(task), limit, untrained_limit, out)
            )
            results[-1]["seconds"] = round(time.monotonic() - started, 1)
            _say(quiet, "      " + _one_line(results[-1]))
    if all("skipped" in result for result in results):
        raise UserError(f"nothing could be evaluated: {results[0]['skipped']}")
    head = {
        "format": 1,
        "suites": [asdict(s) for s in suites],
        "settings": {
            "shots": sorted({k for _, k in jobs}),
            "limit": limit,
            "untrained_limit": untrained_limit,
            "seed": seed,
        },
        "seconds": round(time.monotonic() - began, 1),
        "cache": {"hits": cache.hits, "misses": cache.misses},
    }
    written = write_report(head | _provenance(respondents, questions, store) | {"tasks": results}, out)
    _say(
        quiet,
        f"{out / 'report.html'}: {head['seconds']:.0f} s, {cache.misses} outputs made, {cache.hits} from the cache",
    )
    return written


class _Respondents:
    """Who answers: the model, the same untrained, and their codecs. Made when first needed."""

    def __init__(self, model, codec, tasks: Sequence[Task], cache, seed: int, device: str | None, untrained_limit: int):
        import torch

        from auditory_sentences.uniaudio import UniAudio
        from codec.tokenizer import load_tokenizer
        from evaluation.answers import CodecRespondent, ModelRespondent

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model_source, self.codec_source = model, codec
        uniaudio = UniAudio.from_pretrained(model, device) if model is not None else None
        self.model = ModelRespondent.trained(uniaudio, cache, seed) if uniaudio else None
        self.model_untrained = ModelRespondent.untrained(uniaudio, cache, seed) if uniaudio else None
        self.codec = CodecRespondent(load_tokenizer(codec).to(device) if codec else uniaudio.codec, cache)
        needed = untrained_limit > 0 and any(task.is_reconstruction for task in tasks)
        self.codec_untrained = CodecRespondent.untrained(self.codec.codec, cache, seed) if needed else None

    def of(self, task: Task) -> tuple[ModelRespondent | CodecRespondent, ModelRespondent | CodecRespondent | None]:
        """Trained and untrained respondent of a task."""
        if task.is_reconstruction:
            return self.codec, self.codec_untrained
        return self.model, self.model_untrained


def _questions(model, store, corpora, tasks: Sequence[Task], seed: int) -> Questions:
    from auditory_sentences.processor import local_folder
    from auditory_sentences.published_prompts import bank_of
    from auditory_sentences.token_store import open_stores
    from evaluation.items import Questions
    from evaluation.recordings import Recordings, Relocated

    if store is None and corpora and all(task.is_reconstruction for task in tasks):
        return Questions(Recordings(corpora), seed)
    found = open_stores(_stores_of(model) if store is None else store)
    bank = bank_of(local_folder(model)) if model is not None else None
    return Questions(Relocated(found, corpora) if corpora else found, seed, bank)


def _stores_of(model) -> str | list[str]:
    """The token store, or stores, that a model was trained on, from the recipe in its run's folder."""
    from codec.reading import read_yaml
    from codec.terminal import shown

    if model is None:
        raise UserError("give recordings (--corpus) or a token store (--store)")
    if not Path(model).is_dir():
        raise UserError(f"{model}: no such folder; for a model on the hub, name a token store too (--store)")
    real = Path(model).resolve()  # RUN/model is a link to RUN/checkpoints/STEP/model
    recipe = next((path for path in (parent / "recipe.yaml" for parent in real.parents[:3]) if path.is_file()), None)
    if recipe is None:
        raise UserError(f"{model}: no recipe.yaml near it, so it names no token store; give one (--store)")
    values = read_yaml(recipe)
    if "store" not in values:
        raise UserError(f"{recipe}: names no token store; give one (--store)")
    named = values["store"]
    if not isinstance(named, str) and not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        raise UserError(f"{recipe}: names no token store but {shown(named)}; give one (--store)")
    return named


def _provenance(respondents: _Respondents, questions: Questions, store) -> dict[str, Any]:
    from evaluation.provenance import provenance

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
        "parameters": sum(p.numel() for p in codec.parameters()),
    }  # fmt: skip
    who["data"] = {
        "token_store": ", ".join(map(str, [store or ""] if isinstance(store, str | Path | None) else store)),
        "fingerprint": questions.store.fingerprint,
        "clips": len(questions.store.clips),
    }
    return who | provenance()


def _one_line(entry: dict[str, Any]) -> str:
    from evaluation.report import shown

    if "skipped" in entry:
        return f"skipped: {entry['skipped']}"
    parts = [
        f"{score['name']} {shown(score, score)} (chance {shown(score, score['chance'])})" for score in entry["scores"]
    ]
    return f"{', '.join(parts)}; n {entry['n']}; {entry['seconds']} s"


def _say(quiet: bool, line: str) -> None:
    if not quiet:
        print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 done, 2 something a person has to put right."""
    parser = argparse.ArgumentParser(
        prog="run_suite.py", description="Run a suite of evaluation tasks and write a report."
    )
    parser.add_argument("--model", help="model folder or hub id")
    parser.add_argument("--suite", nargs="+", default=["starter"], help="starter, few_shot, codec, or YAML files")
    parser.add_argument(
        "--shots", nargs="+", type=int, help="numbers of solved examples; default: all that the tasks list"
    )
    parser.add_argument("--limit", type=int, default=LIMIT, help=f"items per task (default {LIMIT})")
    parser.add_argument("--out", default="runs/evaluation", help="folder to write")
    parser.add_argument("--store", nargs="+", help="token stores; default: those that the model was trained on")
    parser.add_argument(
        "--corpus", nargs="+", default=[], dest="corpora", help="recordings: of the store, if moved; or alone"
    )
    parser.add_argument("--codec", help="codec for reconstruction tasks; default: the model's")
    parser.add_argument("--untrained", help="output folder of an earlier run whose cached outputs may be used")
    parser.add_argument(
        "--untrained-limit", type=int, default=UNTRAINED_LIMIT, help="items for the untrained model; 0: none"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=0, help="judges' processes (default: cores, at most 4)")
    parser.add_argument("--device", help="cpu, cuda (default: a GPU where there is one)")
    try:
        run(**vars(parser.parse_args(arguments)))
    except UserError as error:
        print(f"run_suite: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("run_suite: stopped; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
