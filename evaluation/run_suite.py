"""Run a suite of evaluation tasks.

    python evaluation/run_suite.py --model PATH --suite starter few_shot --shots 0 1 4 --limit 40 --out DIR

    python evaluation/run_suite.py compare DIR OTHER_DIR

Writes results.json, results.md, report.html, samples.jsonl and audio/ into DIR. All that a model generated, a codec
decoded or a judge measured is kept in DIR/cache under a key of what it depends on: run again, and nothing is computed
twice.
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
from codec.io.hub import local_folder  # noqa: E402
from codec.io.locks import locked  # noqa: E402
from codec.io.terminal import run_program, shown  # noqa: E402
from evaluation.compare.command import is_asked, run_word  # noqa: E402
from evaluation.config import EvaluationConfig, find_device, parse_config  # noqa: E402
from evaluation.report.progress import Progress, running  # noqa: E402

if TYPE_CHECKING:
    from auditory_sentences.builders.prompts import PromptBank
    from codec.streams import StreamSpec
    from evaluation.cache import Cache
    from evaluation.items import ItemBuilder
    from evaluation.results_folder import ResultsFolder
    from evaluation.runner import Runner
    from evaluation.task import EvalTask, Suite
    from evaluation.text.harness import TextTasks


def run(config: EvaluationConfig, quiet: bool = False) -> dict[str, Any]:
    """Evaluate, and write everything into the folder `config.out`.

    Tasks that this store or model cannot do are left out, and named in the results.

    Args:
        config: What is evaluated, on what.
        quiet: Print no lines on the way.

    Returns:
        What results.json holds.

    Raises:
        UserError: Anything that a person has to put right, or no task can be evaluated. Nothing has been written then,
            unless the cache of a run that had begun.
    """
    from evaluation.datasets.encoded_clips import EncodedClips
    from evaluation.task import load_suites

    suites, tasks = load_suites(config.suite)
    text = _text_tasks(config, suites)
    jobs = [(task, k) for task in tasks for k in task.shots if config.shots is None or k in config.shots]
    if not jobs and not text.tasks:
        listed = sorted({k for task in tasks for k in task.shots})
        raise UserError(f"no task of the suite is meant for shots {list(config.shots or ())}; its tasks have {listed}")
    if config.model is None and (text.tasks or not config.codec or not all(task.is_of_codec for task in tasks)):
        raise UserError(
            "give a model (--model), or a codec (--codec) and a suite of tasks of codecs such as codec or codec_tokens"
        )
    if config.model is not None:
        local_folder(config.model, "model", option="--model")
    device, out = find_device(config.device), Path(config.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; give a folder with --out")
    with locked(out, "an evaluation"):
        from evaluation.cache import Cache
        from evaluation.results_folder import CACHE, ResultsFolder, identity_of
        from evaluation.runner import CodecRunner

        folder = ResultsFolder(out, config.force)
        fingerprints = [(task.task, k, task.fingerprint) for task, k in jobs]
        fingerprints += [(task.task, task.shots or 0, text.fingerprint(task)) for task in text.tasks]
        folder.require_same(identity_of([suite.suite for suite in suites], fingerprints, _settings(config, jobs)))
        cache = Cache(out / CACHE, [Path(config.untrained) / CACHE] if config.untrained else [])
        builder = _item_builder(config, tasks) if jobs else None
        if builder and not text.tasks:
            _require_some(builder, tasks)
        text.require_known()
        runners = _Runners(config, tasks, cache, device)
        if builder and isinstance(builder.store, EncodedClips) and runners.model:
            builder.store.encode_with(CodecRunner(runners.model.uniaudio.codec, cache))
        progress = Progress(quiet)
        with running(progress):
            return _run(config, folder, suites, jobs, text, cache, builder, runners, progress)


def _run(
    config: EvaluationConfig, folder: ResultsFolder, suites: Sequence[Suite], jobs: Sequence[tuple[EvalTask, int]],
    text: TextTasks, cache: Cache, builder: ItemBuilder | None, runners: _Runners, progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Evaluate with everything loaded, into a folder that is locked."""
    from evaluation.codecs.runner import NO_TOKENS
    from evaluation.judges.pool import Judges
    from evaluation.report.text import skips
    from evaluation.report.write import write_report
    from evaluation.results_folder import REPORT, identity_of_parts
    from evaluation.scoring import Extractor
    from evaluation.streams import fit_to_streams, summary
    from evaluation.task_run import evaluate_task

    began, parts = time.monotonic(), _parts(runners, builder)
    folder.require_same(identity_of_parts(parts))
    folder.clean()
    cache.clean()
    results: list[dict[str, Any]] = []
    fitted = [fit_to_streams(task.with_candidates(config.candidates), runners.streams) for task, _ in jobs]
    for line in summary(fitted):
        progress.say(line)
    with Judges(cache, config.processes) as judges:
        clips = builder.store.clips if builder else ()
        extractor = Extractor(judges, clips, runners.recogniser, config.tagger, runners.clap)
        for number, ((task, k), (asked, changes)) in enumerate(zip(jobs, fitted, strict=True), 1):
            shots = "" if task.is_of_codec else f", {k} shot{'s' * (k != 1)}"
            progress.say(f"[{number}/{len(jobs)}] {task.title}{shots} ...")
            made: list[dict[str, Any]] = []
            for runner, untrained in runners.of(task):
                started = time.monotonic()
                entry = evaluate_task(asked, k, config, builder, extractor, runner, untrained)
                entry |= {"fingerprint": task.fingerprint} | ({"changes": list(changes)} if changes else {})
                made.append(entry | {"seconds": round(time.monotonic() - started, 1)})
                if "skipped" not in entry:
                    progress.say("      " + _one_line(made[-1], beside=len(runners.codecs) == 1))
            for reason in skips(made):
                progress.say("      " + reason)
            results += made
    results += _text_results(config, text, runners, cache, progress)
    if all("skipped" in result for result in results):
        raise UserError(f"nothing could be evaluated: {_reasons(results)}")
    # A codec without tokens beside others that have some: nothing that a person has to put right.
    skipped = [result for result in results if result.get("skipped", NO_TOKENS) != NO_TOKENS]
    parts["versions"] |= extractor.versions
    head = {
        "format": 1, "suites": [asdict(suite) for suite in suites], "settings": _settings(config, jobs),
        "seconds": round(time.monotonic() - began, 1), "cache": {"hits": cache.hits, "misses": cache.misses},
    }  # fmt: skip
    sounds = [sample["audio"] for result in results for sample in result.get("samples", []) if "audio" in sample]
    written = write_report(head | parts | {"tasks": results}, folder.folder)
    folder.drop_old_sounds(sounds)
    if cache.damaged:
        warnings.warn(f"{cache.folder}: {cache.damaged} damaged outputs were made again", stacklevel=3)
    if skipped:
        count = len({(result["task"], result["shots"]) for result in skipped})
        warnings.warn(
            f"{count} of {len(jobs) + len(text.tasks)} tasks could not be evaluated: {_reasons(skipped)}", stacklevel=3
        )
    progress.say(
        f"{folder.folder / REPORT}: {head['seconds']:.0f} s, {cache.misses} outputs made, {cache.hits} from the cache"
    )
    return written


def _text_tasks(config: EvaluationConfig, suites: Sequence[Suite]) -> TextTasks:
    """The tasks of lm-eval that the suites list, or that are asked for."""
    from evaluation.text.harness import TextTasks

    listed = {task.task: task for suite in suites for task in suite.text_tasks}
    if not listed and (config.tasks or config.text_model):
        option = "--tasks" if config.tasks else "--text-model"
        raise UserError(f"{option} goes with a suite that has tasks of lm-eval, such as text; give --suite text too")
    return TextTasks.named(list(listed.values()), config.tasks)


def _text_results(
    config: EvaluationConfig, text: TextTasks, runners: _Runners, cache: Cache, progress: Progress
) -> list[dict[str, Any]]:
    """The entries of the tasks of lm-eval."""
    from evaluation.text.harness import evaluate_text, lm_eval_version

    model = beside = None
    if text.tasks and lm_eval_version():
        from evaluation.text.harness_model import HarnessModel
        from evaluation.text.text_models import UniAudioText

        model = HarnessModel(UniAudioText(runners.model.uniaudio, runners.model.fingerprint), cache)
        beside = HarnessModel(runners.text_model, cache) if runners.text_model else None
    results = []
    for number, task in enumerate(text.tasks, 1):
        progress.say(f"[text {number}/{len(text.tasks)}] {task.title or task.task} ...")
        started = time.monotonic()
        entry = evaluate_text(text, task, model, beside, config.limit, config.seed)
        results.append(entry | {"seconds": round(time.monotonic() - started, 1)})
        progress.say(
            "      " + (f"skipped: {entry['skipped']}" if "skipped" in entry else _one_line(results[-1], True))
        )
    return results


def _settings(config: EvaluationConfig, jobs: Sequence[tuple[EvalTask, int]]) -> dict[str, Any]:
    """The numbers that decide what is evaluated, as they stand in results.json."""
    return {
        "shots": sorted({k for _, k in jobs}), "limit": config.limit, "untrained_limit": config.untrained_limit,
        "seed": config.seed,
    } | ({"candidates": config.candidates} if config.candidates > 1 else {})  # fmt: skip


def _require_some(builder: ItemBuilder, tasks: Sequence[EvalTask]) -> None:
    """Raise UserError where no task finds clips: to be checked before a model is loaded."""
    skipped = []
    for task in tasks:
        try:
            builder.positions(task, 1)
            return
        except UserError as error:
            skipped.append({"task": task.task, "skipped": str(error)})
    raise UserError(f"nothing could be evaluated: {_reasons(skipped)}")


def _reasons(skipped: Sequence[dict[str, Any]]) -> str:
    """Every reason once, with the tasks that it holds for, a few of them at most."""
    tasks: dict[str, list[str]] = {}
    for result in skipped:
        names = tasks.setdefault(result["skipped"], [])
        if result["task"] not in names:
            names.append(result["task"])
    reasons = [reason if names[0] in reason else f"{', '.join(names)}: {reason}" for reason, names in tasks.items()]
    return "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more reasons" if len(reasons) > 3 else "")


class _Runners:
    """What is evaluated: the model, the same untrained, and their codecs. Made when first needed."""

    def __init__(self, config: EvaluationConfig, tasks: Sequence[EvalTask], cache: Cache, device: str) -> None:
        from transformers.utils import logging

        from evaluation.codecs.open import open_codecs
        from evaluation.codecs.own import OwnCodec
        from evaluation.codecs.runner import ReconstructionRunner
        from evaluation.runner import ModelRunner
        from uniaudio.model import UniAudio

        logging.disable_progress_bar()
        self.model_source, self.recogniser = config.model, None
        # Judges that were given, by what they do: other ones make it another evaluation.
        self.judges: dict[str, dict[str, str]] = {}
        if config.recogniser is not None:
            from evaluation.judges.whisper import Whisper

            self.recogniser = Whisper(config.recogniser, device)
            self.judges["recogniser"] = {"source": str(config.recogniser), "version": self.recogniser.version}
        if config.tagger is not None:
            from evaluation.judges.tagger import tagger_version

            self.judges["tagger"] = {"source": str(config.tagger), "version": tagger_version(config.tagger)}
        self.clap = None
        if config.clap is not None:
            from evaluation.judges.clap import clap_folder, clap_version

            self.clap = clap_folder(config.clap)
            self.judges["clap"] = {"source": str(config.clap), "version": clap_version(self.clap)}
        self.text_model, self.text_model_source = None, config.text_model
        if config.text_model is not None:
            from evaluation.text.text_models import PlainText

            self.text_model = PlainText.from_pretrained(config.text_model, device)
        uniaudio = UniAudio.from_pretrained(config.model, device) if config.model is not None else None
        self.model = ModelRunner.trained(uniaudio, cache, config.seed) if uniaudio else None
        self.model_untrained = ModelRunner.untrained(uniaudio, cache, config.seed) if uniaudio else None
        sources = config.codec or (config.model,)
        codecs = open_codecs(sources, device) if config.codec else [OwnCodec("codec", uniaudio.codec)]
        made = zip(codecs, sources, strict=True)
        self.codecs = [ReconstructionRunner(codec, cache, str(source)) for codec, source in made]
        alone = len(codecs) == 1  # several stand beside each other, and need no untrained one
        needed = alone and config.untrained_limit > 0 and any(task.is_reconstruction for task in tasks)
        self.codec_untrained = self.codecs[0].untrained(config.seed) if needed else None

    @property
    def streams(self) -> Sequence[StreamSpec]:
        """Those of the model's codec, of which its tasks speak; none without a model."""
        return self.model.uniaudio.codec.streams if self.model else ()

    def of(self, task: EvalTask) -> list[tuple[Runner, Runner | None]]:
        """Trained and untrained runner of a task, for each codec where codecs are evaluated."""
        if task.is_of_codec:
            return [(codec, self.codec_untrained) for codec in self.codecs]
        return [(self.model, self.model_untrained)]


def _item_builder(config: EvaluationConfig, tasks: Sequence[EvalTask]) -> ItemBuilder:
    from auditory_sentences.token_store import open_stores
    from evaluation.datasets.encoded_clips import EncodedClips
    from evaluation.items import ItemBuilder
    from evaluation.recordings import Recordings, Relocated
    from evaluation.results_folder import DATASETS

    datasets = [task.dataset for task in tasks if task.dataset is not None]
    if datasets and config.store is None:
        if len(datasets) < len(tasks):
            raise UserError(
                "these suites have tasks with a data set of their own and others without; evaluate them one after the "
                "other, or give a token store of all (--store)"
            )
        store = EncodedClips(datasets, config.corpus, Path(config.out) / DATASETS)
        return ItemBuilder(store, config.seed, _bank_of(config))
    if config.store is None and config.corpus and all(task.is_of_codec for task in tasks):
        return ItemBuilder(Recordings(config.corpus), config.seed)
    store = open_stores(_stores_of(config.model) if config.store is None else config.store)
    return ItemBuilder(Relocated(store, config.corpus) if config.corpus else store, config.seed, _bank_of(config))


def _bank_of(config: EvaluationConfig) -> PromptBank | None:
    """The model's own prompts; None where no model is evaluated."""
    from uniaudio.release_prompts import bank_of

    return bank_of(local_folder(config.model, "model", option="--model")) if config.model is not None else None


def _stores_of(model) -> list[str]:
    """The token store, or stores, that a model was trained on, from the recipe in its run's folder."""
    from codec.io.reading import read_yaml

    if model is None:
        raise UserError("give recordings (--corpus) or a token store (--store)")
    real = local_folder(model, "model", option="--model").resolve()  # RUN/model is a link to RUN/checkpoints/STEP/model
    recipe = next((path for path in (parent / "recipe.yaml" for parent in real.parents[:3]) if path.is_file()), None)
    if recipe is None:
        raise UserError(f"{model}: no recipe.yaml near it, so it names no token store; give one (--store)")
    store = read_yaml(recipe).get("store")
    paths = [store] if isinstance(store, str) else store
    if not paths or not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise UserError(f"{recipe}: names no token store but {shown(store)}; give one (--store)")
    for path in paths:
        if not Path(path).is_dir():
            raise UserError(f"{path}: the token store that {recipe} names is not there; say where it is with --store")
    return paths


def _parts(runners: _Runners, builder: ItemBuilder | None) -> dict[str, Any]:
    """What was evaluated, on what, with which versions: a part of results.json."""
    from evaluation.provenance import measured_with

    parts: dict[str, Any] = {}
    if runners.model:
        parts["model"] = {
            "source": str(runners.model_source), "fingerprint": runners.model.fingerprint,
            "parameters": runners.model.uniaudio.model.num_parameters(),
        }  # fmt: skip
        parts["untrained"] = {"fingerprint": runners.model_untrained.fingerprint}
    if runners.text_model:
        parts["text_model"] = {
            "source": str(runners.text_model_source), "fingerprint": runners.text_model.fingerprint,
            "parameters": runners.text_model.parameters,
        }  # fmt: skip
    parts["codec"] = runners.codecs[0].facts
    if len(runners.codecs) > 1:
        parts["codecs"] = [codec.facts for codec in runners.codecs]
    if runners.judges:
        parts["judges"] = runners.judges
    parts["data"] = {"token_store": "", "fingerprint": "", "hash": "", "clips": 0}  # text tasks alone need none
    if builder:
        store = builder.store
        parts["data"] = {
            "token_store": store.name, "fingerprint": store.fingerprint, "hash": store.data_hash,
            "clips": len(store.clips),
        }  # fmt: skip
    return parts | measured_with()


def _one_line(entry: dict[str, Any], beside: bool) -> str:
    """What was found, with chance `beside` each score: of several codecs that would be the same line after line."""
    from evaluation.report.text import shown

    parts = []
    for score in entry["scores"]:
        if score["value"] is not None:
            chance = f" (chance {shown(score, score['chance'])})" if beside and score["chance"] is not None else ""
            text_model = f" (text model {shown(score, score['text_model'])})" if score.get("text_model") else ""
            published = f" (published {shown(score, score['published'])})" if score.get("published") else ""
            value = shown(score, score, error=False)
            parts.append(f"{score['name']} {value}{text_model}{chance}{published}")
    codec = f"{entry['codec']}: " if "codec" in entry else ""
    return f"{codec}{', '.join(parts) or 'too few clips for any score'}; n {entry['n']}; {entry['seconds']} s"


def evaluate(arguments: Sequence[str], program: str) -> None:
    """Run the evaluation that a command line means, or compare finished ones (`compare`, `average`).

    Args:
        arguments: The options, as people write them.
        program: Name of the command in usage lines.

    Raises:
        UserError: As `run` does.
    """
    if is_asked(arguments):
        run_word(arguments, program)
    else:
        run(parse_config(arguments, program))


def main() -> None:
    """The command line. Exit status: 0 done, 2 something a person has to put right, 130 Ctrl-C."""
    run_program("run_suite", lambda: evaluate(sys.argv[1:], "run_suite.py"))


if __name__ == "__main__":
    main()
