"""`import uniaudio`: quick, without PyTorch, and transformers knows our model and processor from then on."""

import subprocess
import sys

import pytest

import codec
import lm
import uniaudio
from tests import ROOT


def fresh(code, *arguments, folder=ROOT):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_import_is_quick_and_loads_no_library():
    code = (
        "import time; began = time.perf_counter(); import uniaudio; took = time.perf_counter() - began; import sys\n"
        "print(took, *(name for name in ('torch', 'transformers', 'numpy') if name in sys.modules))"
    )
    runs = [fresh(code) for _ in range(3)]
    assert {len(run) for run in runs} == {1} and min(float(run[0]) for run in runs) < 0.3


@pytest.mark.parametrize("package", [uniaudio, codec, lm])
def test_every_name_that_is_offered_is_there(package):
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'dance'"):
        package.dance  # noqa: B018


def test_what_is_imported_by_name_is_the_thing_itself():
    from training.recipe import train
    from uniaudio.model import UniAudio, load

    assert uniaudio.load is load and uniaudio.UniAudio is UniAudio and uniaudio.train is train
    assert uniaudio.__version__[0].isdigit()


AUTO = "from transformers import AutoModel, AutoProcessor"


@pytest.mark.parametrize("order", [("import uniaudio", AUTO), (AUTO, "import uniaudio")])
def test_auto_classes_know_our_model_and_processor_in_either_order(order, tmp_path):
    from tests.factories.uniaudio import tiny_uniaudio

    tiny_uniaudio().save_pretrained(tmp_path / "model")
    code = "\n".join((*order, "import sys")) + (
        "\nprint(type(AutoProcessor.from_pretrained(sys.argv[1])).__name__,"
        " type(AutoModel.from_pretrained(sys.argv[1])).__name__)"
    )
    assert fresh(code, tmp_path / "model") == ["UniAudioProcessor", "UniAudioForConditionalGeneration"]


def modules_that_import_transformers():
    files = [
        file for package in ("codec", "lm", "auditory_sentences", "uniaudio") for file in (ROOT / package).rglob("*.py")
    ]
    found = [file for file in files if "\nfrom transformers" in file.read_text(encoding="utf-8")]
    return sorted(".".join(file.relative_to(ROOT).with_suffix("").parts) for file in found)


@pytest.mark.slow
@pytest.mark.parametrize("module", modules_that_import_transformers())
def test_any_module_may_be_imported_first(module):
    """transformers brings in ours, once `uniaudio` is imported: none of them may be half made then."""
    assert fresh(f"import uniaudio, {module}; print('whole')") == ["whole"]
