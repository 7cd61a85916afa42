"""`uniaudio corpus`: what it says of clips without a file, of odd names, and of the sentences that clips become."""

import pytest
import yaml

from cli.corpus import count
from tests.auditory_sentences.corpora.test_read import write_table
from tests.evaluation.report.test_write import Reader
from tests.factories import stages

MIXTURE = {"asr": 2, "tts": 2, "segmented_audio": 1, "lyric_recognition": 1, "text_only": 1}


def test_clips_without_a_file_are_counted(tmp_path, capsys):
    (tmp_path / "a.wav").write_bytes(b"")
    write_table(tmp_path / "t.csv", [{"file": "a.wav", "text": "one"}, {"file": "gone.wav", "text": "two"}])
    (tmp_path / "c.yaml").write_text("kind: table\npath: t.csv\n")
    with pytest.warns(UserWarning, match=r"c.yaml: 1 of 2 clips have no audio file, .*gone.wav the first"):
        count([tmp_path / "c.yaml"])
    assert capsys.readouterr().out == f"{tmp_path / 'c.yaml'}\tspeech\ttrain\t2\n"


def test_counting_prints_no_control_characters(tmp_path, capsys):
    folder = tmp_path / "a\x1b[31mb"
    folder.mkdir()
    (folder / "clips.jsonl").write_text('{"id": "a", "path": "clips.jsonl", "kind": "sound", "split": "dev"}\n')
    count([folder])
    assert "\\x1b[31mb\tsound\tdev\t1" in capsys.readouterr().out


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a store, a codec and a text model, and recipe.yaml over them."""
    folder = tmp_path_factory.mktemp("world")
    stages.prepare(folder)
    recipe = {"kind": "language_model"} | stages.recipe(folder, 4, mixture=MIXTURE)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return folder


def test_it_prints_each_entry_with_its_sentences(world, uniaudio):
    done = uniaudio("corpus", "show", world / "recipe.yaml", "--count", 2)
    assert done.status == 0 and done.err == ""
    lines = done.out.splitlines()
    assert lines[0].startswith(f"store {world / 'tokens'}; split train; seed 3; context 192 rows; loss 1.6 × text")
    heads = [line for line in lines if line and not line.startswith(" ")][1:]
    assert [head.partition(":")[0] for head in heads] == list(MIXTURE)
    assert "weight 2, 33." in heads[0] and "of the sentences, about " in heads[0]
    asr = lines[lines.index(heads[0]) : lines.index(heads[1])]
    assert asr[1] == "  Task asr: given prompt, audio; learned transcription."
    assert asr[2].startswith("  1. epoch 0, sentence ") and " of 192 rows" in asr[2]
    assert [line.split()[:2] for line in asr[3:6]] == [
        ["given", "prompt"],
        ["given", "audio"],
        ["target", "transcription"],
    ]
    assert "[audio 1." in asr[4] and ", clip train-" in asr[4]
    assert "  no sentence: training would stop here: the mixture asks for 'lyric_recognition'" in done.out
    assert uniaudio("corpus", "show", world / "recipe.yaml", "--count", 2).out == done.out, "the same every time"


def test_overrides_and_only_one_entry(world, uniaudio):
    done = uniaudio("corpus", "show", world / "recipe.yaml", "seed=9", "loss.audio=0", "--only", "tts", "--count", 1)
    heads = [line for line in done.out.splitlines() if line and not line.startswith(" ")]
    assert len(heads) == 2 and "seed 9" in heads[0] and heads[1].startswith("tts: weight 2")
    assert "     no loss audio" in done.out and "about" not in heads[1]


def test_long_text_is_cut_in_the_terminal_alone(world, uniaudio, tmp_path):
    words = " ".join(["one"] * 100)
    (tmp_path / "texts.txt").write_text(f"{words}\n{words} two\n")
    asked = ["corpus", "show", world / "recipe.yaml", f"texts=[{tmp_path / 'texts.txt'}]", "--only", "text_only"]
    done = uniaudio(*asked, "--out", tmp_path / "page.html")
    assert max(map(len, done.out.splitlines())) < 200 and "one one ..." in done.out
    assert words in (tmp_path / "page.html").read_text()


def test_the_page_is_whole_and_never_written_over(world, uniaudio, tmp_path):
    asked = ["corpus", "show", world / "recipe.yaml", "--count", 1, "--out", tmp_path / "new" / "page.html"]
    done = uniaudio(*asked)
    assert done.status == 0 and done.out.splitlines()[-1].startswith(f"page\t{tmp_path / 'new' / 'page.html'}\t")
    text = (tmp_path / "new" / "page.html").read_text()
    assert set(MIXTURE) <= Reader(text).ids and "decoded tokens" in text and "data:audio/flac" in text
    before = text
    assert uniaudio(*asked).status == 2 and (tmp_path / "new" / "page.html").read_text() == before
    assert uniaudio(*asked, "--force").status == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--only", "asrr"], "the mixture has no entry 'asrr'"),
        (["--split", "training"], "--split: must be one of train, dev, test"),
        (["--out", "page.txt"], "the page is written as .html"),
        (["--decoded"], "--out"),
        (["--count", "0"], "--count"),
        (["stepps=3"], "stepps"),
        (
            ["store=nowhere"],
            "nowhere: no token store is there; build it with `uniaudio corpus store CORPUS --out nowhere`",
        ),
        (["text_model=''", "init=nowhere"], "nowhere: no model there"),
        (["text_model=''", "init=nowhere"], "init may be any model of the same tokenizers"),
    ],
)
def test_bad_input_gets_a_sentence(world, uniaudio, more, said):
    done = uniaudio("corpus", "show", world / "recipe.yaml", *more)
    assert done.status == 2 and said in done.err and done.out == "" and len(done.err.splitlines()) == 1


def test_another_kind_of_recipe_has_no_sentences(uniaudio):
    done = uniaudio("corpus", "show", "starter/scalar")
    assert done.status == 2 and "a recipe of kind scalar draws no auditory sentences" in done.err


def test_a_corpus_that_holds_none_of_the_clips_is_refused(world, uniaudio, tmp_path, tone):
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "tone.wav").write_bytes(tone.read_bytes())
    asked = ["corpus", "show", world / "recipe.yaml", "--count", 1, "--out", tmp_path / "page.html"]
    done = uniaudio(*asked, "--corpus", tmp_path / "sounds")
    assert done.status == 2 and "holds none of the token store's clips" in done.err
    assert not (tmp_path / "page.html").exists()


def test_a_corpus_in_the_place_of_a_recipe_is_counted(tmp_path, uniaudio):
    (tmp_path / "a.wav").write_bytes(b"")
    write_table(tmp_path / "t.csv", [{"file": "a.wav", "text": "one"}])
    (tmp_path / "c.yaml").write_text("kind: table\npath: t.csv\n")
    shown, counted = (uniaudio("corpus", verb, tmp_path / "c.yaml") for verb in ("show", "count"))
    assert shown.status == 0 and shown.out == counted.out and "speech\ttrain\t1" in shown.out
