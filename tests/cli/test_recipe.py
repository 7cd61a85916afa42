"""`uniaudio recipe`: what there is, what may stand in one, and whether one is right."""

import pytest


def test_every_shipped_recipe_is_listed_and_right(uniaudio):
    lines = uniaudio("recipe", "list").out.splitlines()
    names = [line.split()[0] for line in lines]
    assert {"starter/stage1", "starter/codec", "full/grpo"} <= set(names)
    for name in names:
        done = uniaudio("recipe", "check", name)
        assert done.status == 0 and "steps of kind" in done.out, done.err


def test_keys_are_shown_with_default_type_and_help(uniaudio):
    lines = uniaudio("recipe", "show", "language_model").out.splitlines()
    assert any(line.startswith("optimiser.lr = 0.0002  (number above 0)  peak learning rate") for line in lines)
    assert any(line.startswith("stage  (one of 1, 2, 3, 4)") for line in lines)
    assert all(line.isprintable() for line in lines)


def test_check_says_what_train_would_do(uniaudio, tmp_path):
    done = uniaudio("recipe", "check", "starter/stage1", "steps=3", f"out={tmp_path / 'run'}", "store=nowhere")
    assert f"3 steps of kind language_model into {tmp_path / 'run'}" in done.out
    assert "audio_tokenizer: starter/codec (shipped)" in done.out and "store: nowhere (missing)" in done.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "languag_model"], "did you mean 'language_model'"),
        (["check", "starter/stage11"], "did you mean 'starter/stage1'"),
        (["check", "starter/stage1", "step=3"], "did you mean 'steps'"),
        (["check", "starter/stage1", "steps=-3"], "'steps' must be at least 1"),
    ],
)
def test_mistakes_exit_2_with_one_sentence(uniaudio, arguments, said):
    done = uniaudio("recipe", *arguments)
    assert done.status == 2 and said in done.err and len(done.err.splitlines()) == 1 and not done.out
