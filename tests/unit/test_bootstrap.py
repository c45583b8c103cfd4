from __future__ import annotations

import shutil

import pytest

import bootstrap
from bootstrap import Environment, Interpreter, SetupError


@pytest.fixture
def commands():
    """The commands that would have been run."""
    return []


@pytest.fixture
def environment(tmp_path, monkeypatch, commands):
    """An environment in an empty repository, with nothing installed into it really."""
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(bootstrap, "_pip_version", lambda python: (23, 2))
    environment = Environment("trial", Interpreter.running())

    def run(*command):
        commands.append([str(part) for part in command])
        if "venv" in command:
            environment.python.parent.mkdir(parents=True)
            environment.python.touch()
        return f"{environment.directory}\n"

    monkeypatch.setattr(bootstrap, "_run", run)
    return environment


def installed(commands):
    """What the commands installed, one list for each."""
    return [line[line.index("install") + 1 :] for line in commands if "install" in line]


def test_the_first_start_makes_it_and_says_so(environment, commands, capsys):
    environment.ensure(["django>=5.2", "pytest>=9"])

    assert installed(commands) == [["django>=5.2", "pytest>=9"]]
    assert "Installing django, pytest" in capsys.readouterr().out


def test_the_second_start_does_nothing_and_says_nothing(environment, commands, capsys):
    environment.ensure(["django>=5.2", "pytest>=9"])
    capsys.readouterr()
    commands.clear()

    environment.ensure(["pytest>=9"])

    assert commands == []
    assert capsys.readouterr().out == ""


def test_a_new_requirement_is_added_to_what_is_there(environment, commands):
    environment.ensure(["django>=5.2"])
    commands.clear()

    environment.ensure(["django>=5.2", "ruff>=0.15"])
    environment.ensure(["django>=5.2"])

    assert installed(commands) == [["django>=5.2", "ruff>=0.15"]]
    assert not any("venv" in command for command in commands)


def test_another_version_of_python_makes_it_anew(environment, commands):
    environment.ensure(["django>=5.2"])
    commands.clear()

    other = Environment("trial", Interpreter("python", (*environment.interpreter.version[:2], 99)))
    other.ensure(["django>=5.2"])

    assert any("venv" in command for command in commands)


def test_what_failed_is_done_again_at_the_next_start(environment, commands, monkeypatch):
    run = bootstrap._run

    def fail(*command):
        if "install" in command:
            raise SetupError("no network")
        return run(*command)

    monkeypatch.setattr(bootstrap, "_run", fail)
    with pytest.raises(SetupError, match="no network"):
        environment.ensure(["django>=5.2"])
    monkeypatch.setattr(bootstrap, "_run", run)
    shutil.rmtree(environment.directory)
    environment.ensure(["django>=5.2"])

    assert installed(commands) == [["django>=5.2"]]


def test_pip_takes_over_where_uv_fails(environment, commands, monkeypatch, capsys):
    run = bootstrap._run

    def fail(*command):
        if command[0] == "/usr/bin/uv":
            raise SetupError("too old")
        return run(*command)

    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(bootstrap, "_run", fail)
    environment.ensure(["django>=5.2"])

    assert installed(commands) == [["django>=5.2"]]
    assert "trying pip" in capsys.readouterr().out


def test_a_command_that_fails_is_shown_with_all_that_it_said():
    with pytest.raises(SetupError, match=r"(?s)raise SystemExit.*a reason"):
        bootstrap._run(Interpreter.running().executable, "-c", "raise SystemExit('a reason')")


def test_requirements_come_from_pyproject():
    found = bootstrap.requirements(extras=["redis"], groups=["docs"])

    assert found[0].startswith("django>=")
    assert any(line.startswith("django-redis") for line in found)
    assert any(line.startswith("sphinx") for line in found)
