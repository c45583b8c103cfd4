"""The demo's own work: what a census finds in files, and what it makes of that."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.charts import LEFT, RIGHT, WIDTH, bar_chart
from demo.children import Children, DemoError
from demo.figures import size
from demo.reports import KINDS_SHOWN, OTHERS, Kind, build_report
from demo.show import _free_port
from demo.surveys import FileSurvey, files_below, installed_django, survey
from demo.terminal import Bar

SOURCE = b"class A:\n    def f(self): ...\n    async def g(self): ...\n\ndef h(): ...\n"


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def a_kind(kind: str, size: int, files: int = 1) -> Kind:
    return Kind(kind=kind, size=size, files=files, lines=0, functions=0, classes=0)


def test_a_python_file_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.PY", SOURCE)

    assert survey(path) == FileSurvey(
        path=str(path), kind=".py", size=len(SOURCE), lines=5, longest_line=26,
        functions=3, classes=1,
    )  # fmt: skip


@pytest.mark.parametrize("source", [b"print 'Python 2'\n", b"\xff\xfe\n", b"(" * 300 + b"\n"])
def test_source_for_another_python_has_lines_but_no_functions(
    tmp_path: Path, source: bytes
) -> None:
    found = survey(write(tmp_path / "a.py", source))

    assert (found.lines, found.functions, found.classes) == (1, 0, 0)


def test_the_longest_line_is_counted_in_characters(tmp_path: Path) -> None:
    found = survey(write(tmp_path / "a.txt", "é\nüüü\r\nx".encode()))

    assert (found.lines, found.longest_line) == (3, 3)


def test_a_binary_file_has_a_size_only(tmp_path: Path) -> None:
    path = write(tmp_path / "image", b"\x89\n\n\0")

    assert survey(path) == FileSurvey(path=str(path), kind="no suffix", size=4)


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    assert survey(write(tmp_path / "__init__.py", b"")).lines == 0


def test_hidden_and_generated_files_are_left_out(tmp_path: Path) -> None:
    for name in ("b/x.py", "a/y.py", "z.py", ".git/config", "a/.hidden", "a/__pycache__/y.pyc"):
        write(tmp_path / name, b"")
    (tmp_path / "link.py").symlink_to(tmp_path / "z.py")

    found = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)]

    assert found == ["z.py", "a/y.py", "b/x.py"]


def test_the_default_tree_has_a_thousand_files() -> None:
    assert sum(1 for _ in files_below(installed_django())) >= 1000


def test_a_report_adds_up_and_ranks() -> None:
    report = build_report(
        Path("/src"),
        [
            FileSurvey("/src/a.py", ".py", 10, lines=2, longest_line=8, functions=1, classes=1),
            FileSurvey("/src/lib/b.py", ".py", 20, lines=3, longest_line=30, functions=4),
            FileSurvey("/src/c.png", ".png", 90),
        ],
    )

    assert report["totals"] == {"files": 3, "lines": 5, "size": 120, "functions": 5, "classes": 1}
    assert [kind["kind"] for kind in report["kinds"]] == [".png", ".py"]
    assert report["kinds"][1]["files"] == 2
    assert [file["path"] for file in report["largest"]] == ["c.png", "lib/b.py", "a.py"]
    assert report["longest_line"] == {"path": "lib/b.py", "length": 30}


@pytest.mark.parametrize(
    ("kinds", "shown", "last"),
    [
        (KINDS_SHOWN, KINDS_SHOWN, ".0"),
        (KINDS_SHOWN + 1, KINDS_SHOWN + 1, ".0"),
        (KINDS_SHOWN + 2, KINDS_SHOWN + 1, OTHERS),
    ],
)
def test_rare_kinds_are_put_together(kinds: int, shown: int, last: str) -> None:
    surveys = [FileSurvey(f"/src/{n}.{n}", f".{n}", n) for n in range(kinds)]

    report = build_report(Path("/src"), surveys)

    assert len(report["kinds"]) == shown
    assert report["kinds"][-1]["kind"] == last
    assert sum(kind["files"] for kind in report["kinds"]) == kinds


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 bytes"),
        (1023, "1,023 bytes"),
        (1024, "1.0 KB"),
        (1536 * 1024, "1.5 MB"),
        (3 * 1024**4, "3,072.0 GB"),
    ],
)
def test_sizes_can_be_read(number: int, text: str) -> None:
    assert size(number) == text


def test_the_chart_keeps_within_its_width() -> None:
    chart = bar_chart([a_kind(".py", 4096, files=2000), a_kind(".verylongsuffix", 0)])

    assert [bar.width for bar in chart.bars] == [WIDTH - LEFT - RIGHT, 2]
    assert chart.bars[0].value == "4.0 KB in 2,000 files"
    assert chart.bars[1].label == ".verylong…"
    assert chart.summary.startswith(".py: 4.0 KB in 2,000 files; ")


def test_a_chart_of_empty_files_has_bars() -> None:
    assert bar_chart([a_kind(".py", 0)]).bars[0].width == 2


def progress(finished: int) -> dict[str, object]:
    return {"total": 4, "finished": finished, "percent": 25 * finished, "rate": 2, "failed": 0}


def test_the_bar_moves_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    bar = Bar()
    bar.show(progress(1))
    bar.close(progress(4))

    first, second = capsys.readouterr().out.removeprefix("\r").split("\r")

    assert first.rstrip().endswith(" 25 %  1 of 4 files, 2 a sec")
    assert (len(first), len(second)) == (59, 60)
    assert second.endswith("\n")


def test_the_bar_is_a_line_each_second_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    for finished in (1, 2, 3):
        bar.show(progress(finished))
    bar.close(progress(4))

    lines = capsys.readouterr().out.splitlines()

    assert [line.partition(" %")[0][-3:] for line in lines] == [" 25", "100"]
    assert "\r" not in "".join(lines)


def test_a_taken_port_is_refused_when_asked_for() -> None:
    with pytest.raises(DemoError, match="Port 99999 is taken"):
        _free_port(99999)

    assert _free_port(None) > 0


def test_a_child_that_dies_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        children.start("worker", "no_such_command")
        children._processes["worker"].wait(30)

        with pytest.raises(DemoError, match="The worker ended by itself, with exit code 1") as died:
            children.check()

    assert "no_such_command" in str(died.value)
