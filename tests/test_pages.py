"""What a visitor reads: README, pages under docs/, the log and the recipes' table say what is there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import ROOT

README = ROOT / "README.md"
PAGES = [README, *(ROOT / name for name in ("LOG.md", "CONTRIBUTING.md", "CHANGELOG.md", "recipes/README.md"))]
PAGES += sorted((ROOT / "docs").glob("*.md"))
HISTORY = {"LOG.md", "CHANGELOG.md"}  # their file names are of the time
PACKAGES = ("codec", "lm", "auditory_sentences", "uniaudio", "evaluation", "training", "cli")
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
FILE = re.compile(rf"`(?P<path>(?:{'|'.join(PACKAGES)}|recipes|benchmarks|tests|docs)/[\w./-]*)`")

needs_starter = pytest.mark.skipif(
    not (ROOT / "assets/starter/model/config.json").exists(), reason="no starter model is shipped yet"
)


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_link_of_a_page_leads_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://", "../../actions/")):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{target} does not exist"
        assert not anchor or anchor in _anchors(place), f"{target}: {_name(place)} has no such heading"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in HISTORY], ids=_name)
def test_every_file_that_a_page_names_exists(page):
    for path in FILE.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists() or list(ROOT.glob(path)), f"{path} does not exist"


@pytest.mark.parametrize("page", [README, ROOT / "LOG.md", ROOT / "CONTRIBUTING.md"], ids=_name)
def test_lines_of_a_page_have_at_most_100_characters(page):
    assert [line for line in page.read_text(encoding="utf-8").splitlines() if len(line) > 100] == []


def test_the_readme_has_fewer_than_150_lines():
    assert len(README.read_text(encoding="utf-8").splitlines()) < 150


def test_every_citation_of_the_published_model_names_a_section_of_the_reference():
    reference = (ROOT / "docs/published_model.md").read_text(encoding="utf-8")
    sections = set(re.findall(r"^#+ ([A-F](?:\.\d)?)[ .]", reference, re.MULTILINE))
    citation = re.compile(r"published (?:model|sampler|text tokenizer's ids)\W{1,3}(§[A-F][^);]*)")
    cited = {}
    for file in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        text = re.sub(r"\s*\n\s*#?\s*", " ", file.read_text(encoding="utf-8"))
        for passage in citation.findall(text):
            cited |= dict.fromkeys(re.findall(r"§([A-F](?:\.\d)?)", passage), file)
    assert len(cited) > 5
    assert {section: file for section, file in cited.items() if section not in sections} == {}


def test_the_log_is_newest_first_and_every_entry_has_a_verdict():
    text = (ROOT / "LOG.md").read_text(encoding="utf-8")
    _, *entries = re.split(r"^## ", text, flags=re.MULTILINE)
    dates = [re.match(r"(\d{4}-\d\d-\d\d): \S", entry)[1] for entry in entries]
    assert dates == sorted(dates, reverse=True)
    assert [entry.splitlines()[0] for entry in entries if "- **Verdict**: " not in entry] == []


@pytest.mark.parametrize("tier", ["starter", "full"])
def test_the_table_of_recipes_names_every_recipe(tier):
    text = (ROOT / "recipes/README.md").read_text(encoding="utf-8").partition(f"## {tier}")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`(\w+)`", text))
    if tier == "full":
        listed |= {"stage2", "stage3"}  # `stage1` to `stage4`
    assert {path.stem for path in (ROOT / "recipes" / tier).glob("*.yaml")} - listed == set()


@pytest.mark.parametrize("file", sorted((ROOT / ".github").rglob("*.yml")) + [ROOT / "CITATION.cff"], ids=_name)
def test_files_for_services_are_yaml(file):
    assert isinstance(yaml.safe_load(file.read_text(encoding="utf-8")), dict)


def test_every_make_target_that_a_page_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        if page.name not in HISTORY:
            text = page.read_text(encoding="utf-8")
            named = re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)(?: +#.*)?$", text, re.MULTILINE)
            assert {one or other for one, other in named} <= targets, _name(page)


def _commands(page: Path) -> list[str]:
    """The `uniaudio` commands of a page's shell blocks, without comments."""
    blocks = re.findall(r"^```bash\n(.+?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("uniaudio ")]


@pytest.mark.slow
@needs_starter
def test_the_commands_of_the_readme_run(tmp_path):
    commands = [line for line in _commands(README) if not line.startswith("uniaudio train")]
    assert len(commands) >= 4
    program = Path(sys.executable).with_name("uniaudio")
    for command in commands:
        _run([program, *shlex.split(command)[1:]], tmp_path)
    assert (tmp_path / "out.wav").stat().st_size > 1000 and (tmp_path / "back.wav").stat().st_size > 1000


@pytest.mark.slow
@needs_starter
def test_the_python_of_the_readme_runs(tmp_path):
    block = re.search(r"^```python\n(.+?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1]
    _run([sys.executable, "-c", block], tmp_path)
    assert (tmp_path / "out.wav").stat().st_size > 1000


def _run(command: list[str | Path], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, timeout=280, env=os.environ | {"PYTHONPATH": str(ROOT)})


def test_the_site_is_built_without_warnings(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    subprocess.run(command, cwd=ROOT, check=True, timeout=280)
    assert (tmp_path / "site/index.html").exists()
