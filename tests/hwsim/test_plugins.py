"""Entry points of other packages: a broken one is named and left out."""

from types import SimpleNamespace

from hwsim import plugins


def entry(name, load):
    return SimpleNamespace(name=name, load=load, dist=SimpleNamespace(name="their-package"))


def test_a_broken_entry_point_is_named_and_left_out(monkeypatch, capsys):
    def broken():
        raise ImportError("no module named 'theirs'")

    points = [entry("good", lambda: "loaded"), entry("bad", broken)]
    monkeypatch.setattr(plugins.metadata, "entry_points", lambda group: points if group == "hwsim.test" else [])
    assert plugins.load_group("hwsim.test") == {"good": "loaded"}
    assert capsys.readouterr().err == (
        "hwsim: warning: hwsim.test 'bad' of their-package left out: ImportError: no module named 'theirs'\n"
    )
