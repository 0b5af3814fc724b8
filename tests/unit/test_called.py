"""A printed command works where it is read, whatever file drainctl was called with."""

from __future__ import annotations

import pytest

from drainctl.called import as_called


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("go on: drainctl resume r1 (web1 again)", "go on: drainctl -c x.yml resume r1 (web1 again)"),
        (
            "`drainctl show r1` tells; `drainctl pause`",
            "`drainctl -c x.yml show r1` tells; `drainctl -c x.yml pause`",
        ),
        ("a defect of drainctl ended it", "a defect of drainctl ended it"),
        ("drainctl drains it", "drainctl drains it"),
        ("drainctl lab mend", "drainctl lab mend"),
        ("drainctl -c y.yml resume r1", "drainctl -c y.yml resume r1"),
    ],
)
def test_a_command_names_the_file_that_it_was_called_with(text, told):
    assert as_called(text, "x.yml") == told
    assert as_called(told, "x.yml") == told, "twice is once"
    assert as_called(text, "drainctl.yml") == text


def test_the_usual_file_is_known_by_its_whole_path_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert as_called("drainctl status", str(tmp_path / "drainctl.yml")) == "drainctl status"
    assert as_called("drainctl status", str(tmp_path / "a" / "x.yml")) == "drainctl -c a/x.yml status"
    assert as_called("drainctl status", "/srv/x.yml") == "drainctl -c /srv/x.yml status"


def test_a_file_with_a_blank_is_quoted():
    assert as_called("drainctl status", "my shop.yml") == "drainctl -c 'my shop.yml' status"
