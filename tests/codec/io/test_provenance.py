import subprocess

from codec.io import provenance


def test_a_run_is_described_by_plain_values():
    facts = provenance.provenance(("torch", "no-such-package"))
    assert facts["versions"].keys() == {"torch", "no-such-package", "python"}
    assert facts["versions"]["no-such-package"] == "not installed"
    assert facts["date"].endswith("+00:00") and facts["machine"]["cores"] >= 1 and facts["command"]


def test_the_commit_says_whether_files_differ(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git_commit() == ""

    def git(*arguments):
        author = ("-c", "user.name=A", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *author, *arguments], check=True)

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-qm", "one")
    commit = provenance.git_commit()
    assert len(commit) == 40
    (tmp_path / "untracked").touch()
    assert provenance.git_commit() == commit
    (tmp_path / "file").write_text("two")
    assert provenance.git_commit() == f"{commit}+changes"


def test_a_machine_without_git_has_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.git_commit() == ""
