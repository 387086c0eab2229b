"""Declared input files: what patterns mean, and digests of files and trees."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentnb as nb
from agentnb.agents import input_files
from agentnb.agents.input_files import Contents, find_inputs


def test_names_folders_globs_and_templates_are_found_each_once(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "deep/c.csv", "[x].csv", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    here = str(tmp_path)

    def found(*patterns: str, **params: object) -> list[str]:
        return [os.path.relpath(path, here) for path in find_inputs(patterns, params, here)]

    assert found("*.csv") == ["[x].csv", "a.csv", "b.csv"]
    assert found("**/*.csv", "a.csv", "./a.csv") == ["[x].csv", "a.csv", "b.csv", "deep/c.csv"]
    assert found("[x].csv") == ["[x].csv"]  # the file of that name, not a pattern
    assert found("deep", str(tmp_path / "notes.txt")) == ["deep", "notes.txt"]
    assert found("{{which}}.csv", which="b") == ["b.csv"]
    assert found("d*p") == ["deep"]
    assert find_inputs((), {}, here) == []


def test_a_folder_whose_name_has_the_signs_of_a_glob_is_searched_all_the_same(tmp_path: Path) -> None:
    home = tmp_path / "[odd]*"
    home.mkdir()
    (home / "a.csv").write_text("x")
    assert find_inputs(["*.csv"], {}, str(home)) == [str(home / "a.csv")]


def test_what_is_not_there_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(nb.ConfigError, match=re.escape(f"inputs: 'gone.csv' is not there in {tmp_path}; give files, folders or globs")):
        find_inputs(["gone.csv"], {}, str(tmp_path))
    with pytest.raises(nb.ConfigError, match=r"inputs: '\*\.csv' matches no file in "):
        find_inputs(["*.csv"], {}, str(tmp_path))
    with pytest.raises(nb.ConfigError, match="there is no value 'which'"):
        find_inputs(["{{which}}.csv"], {}, str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(nb.ConfigError, match="pipe is neither a file nor a folder"):  # reading it would wait for ever
        find_inputs(["pipe"], {}, str(tmp_path))
    with pytest.raises(nb.ConfigError, match="files of a worktree are those of its commit"):
        find_inputs(["a.csv"], {}, None)


@pytest.mark.parametrize("bad", [3, {"a": 1}, [""], [None], ["a\0b"], b"x"])
def test_what_names_no_file_is_refused_before_anything_is_looked_for(bad: object) -> None:
    with pytest.raises(nb.ConfigError, match=r"inputs: .* write inputs=\['data/\*\.csv', 'script\.py'\]"):
        nb.ExecutionConfig(inputs=bad)


def test_one_name_may_stand_without_a_list() -> None:
    assert nb.ExecutionConfig(inputs="a.csv").inputs == ("a.csv",)
    assert nb.ExecutionConfig(inputs=Path("a.csv")).inputs == ("a.csv",)


def test_a_large_file_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_files, "_PIECE", 1000)
    data = os.urandom(12_345)
    (tmp_path / "big").write_bytes(data)
    assert Contents().of(str(tmp_path / "big")) == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_a_file_is_read_once_and_anew_by_the_next_launch(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("1")
    contents = Contents()
    first = contents.of(str(path))
    path.write_text("2")
    assert contents.of(str(path)) == first != Contents().of(str(path))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(nb.ConfigError, match=r"reuse: .*/gone cannot be read: No such file"):
        Contents().of(str(tmp_path / "gone"))


def test_a_tree_counts_by_names_contents_links_and_what_may_be_run(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "a").write_text("1")
    seen = [Contents().of(str(tree))]

    def changed() -> bool:
        seen.append(Contents().of(str(tree)))
        return len(set(seen)) == len(seen)

    (tree / "sub" / "a").write_text("2")
    assert changed()
    (tree / "sub" / "a").rename(tree / "sub" / "b")
    assert changed()
    (tree / "sub" / "b").chmod(0o755)
    assert changed()
    (tree / "link").symlink_to("sub/b")
    assert changed()
    (tree / "sub" / "b").write_text("3")
    assert changed()
    (tree / "empty").mkdir()
    assert changed()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("1")
    (tree / "away").symlink_to(outside)
    assert changed()
    (outside / "x").write_text("2")  # a link leads there, and so would a run
    assert changed()


def test_a_tree_that_leads_into_itself_and_what_others_write_there_are_no_trouble(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_text("1")
    (tree / "around").symlink_to(tree)
    os.mkfifo(tree / "pipe")
    before = Contents().of(str(tree))
    for name in (".git", "__pycache__", ".ipynb_checkpoints", "store/blobs"):
        (tree / name).mkdir(parents=True)
        (tree / name / "x").write_text("x")
    with pytest.raises(AssertionError):
        assert Contents().of(str(tree)) == before  # a folder that is called store is none yet
    (tree / "store" / "history.db").write_text("")
    assert Contents().of(str(tree)) == before


FILES = st.dictionaries(st.sampled_from("abcd"), st.binary(max_size=20), max_size=4)


@settings(max_examples=30, deadline=None)
@given(FILES, FILES)
def test_trees_are_equal_when_and_only_when_their_files_are(
    tmp_path_factory: pytest.TempPathFactory, one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    digests = []
    for files in (one, other):
        folder = tmp_path_factory.mktemp("tree")
        for name, data in files.items():
            (folder / name).write_bytes(data)
        digests.append(Contents().of(str(folder)))
    assert (digests[0] == digests[1]) == (one == other)
