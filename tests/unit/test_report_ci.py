from __future__ import annotations

import io
import re
from pathlib import Path

from drainctl.journal.events import Event
from drainctl.report import github as github_report
from drainctl.report import gitlab as gitlab_report
from drainctl.report.github import GithubReport, escaped
from drainctl.report.gitlab import GitlabReport
from drainctl.report.markdown import summary
from drainctl.report.story import Story
from tests.unit import events_kit as kit


def github(events: list[Event], tmp_path: Path) -> tuple[list[str], str, str]:
    out = io.StringIO()
    summary_file, output_file = tmp_path / "summary.md", tmp_path / "output"
    summary_file.write_text("before\n")
    environ = {"GITHUB_STEP_SUMMARY": str(summary_file), "GITHUB_OUTPUT": str(output_file)}
    report = GithubReport(out, environ=environ)
    for event in events:
        report.event(event)
    report.progress({})
    report.close()
    report.close()
    return out.getvalue().splitlines(), summary_file.read_text(), output_file.read_text()


def test_github_groups_waves_and_closes_each_group(tmp_path: Path) -> None:
    lines, _, _ = github(kit.done(), tmp_path)
    note = "::warning title=note::lb2 has a new process (pid 811, before 402): looked at afresh"
    assert [line for line in lines if line.startswith("::")] == [
        "::group::wave 1 of 3: web1", note, "::endgroup::",
        "::group::wave 2 of 3: web2, web3", "::endgroup::",
        "::group::wave 3 of 3: web4", "::endgroup::",
    ]  # fmt: skip
    assert lines.index("::endgroup::") < next(n for n, line in enumerate(lines) if "proof" in line)


def test_github_annotates_failures(tmp_path: Path) -> None:
    lines, _, _ = github(kit.put_back(), tmp_path)
    errors = [line for line in lines if line.startswith("::error")]
    assert errors[0] == (
        "::error title=web2 restart::health.version answers '41', not '42' 60 s after it began (limit 60 s)"
        "%0Ahint: see `systemctl status shop` on web2"
    )
    assert errors[1].startswith("::error title=rollout.ended::put-back: web2: restart: health.version")
    assert any(line.startswith("::warning title=rollout.turned::going back: web2") for line in lines)


def test_github_escapes_what_it_passes_on() -> None:
    assert escaped("100%\r\n::error::x") == "100%25%0D%0A::error::x"
    assert escaped("a:b,c%", in_property=True) == "a%3Ab%2Cc%25"


def test_github_no_text_can_begin_a_command(tmp_path: Path) -> None:
    lines, _, _ = github([Event(1, 1.0, "r", "note", "web1", None, "x\n::stop-commands::t")], tmp_path)
    assert not any(line.lstrip().startswith("::") for line in lines)


def test_github_outputs_and_summary_are_appended_once(tmp_path: Path) -> None:
    _, summary_text, output = github(kit.put_back(), tmp_path)
    assert output == f"rollout={kit.ROLLOUT}\noutcome=put-back\nexit=1\n"
    assert summary_text.startswith("before\n### drainctl: deploy 42 over shop")
    assert summary_text.count("### drainctl") == 1
    assert "| web2 | 41 -> 42 | forward | turned back | 60.4 s |" in summary_text
    assert "| web3 |  |  | staged |  |  |" in summary_text
    assert "Proof: inconclusive: lb2 was reloaded at 14:02:31" in summary_text


def test_github_without_its_files_writes_none() -> None:
    report = GithubReport(io.StringIO(), environ={})
    report.event(kit.done()[0])
    report.close()


def test_a_summary_is_a_table_whatever_the_texts_hold() -> None:
    why = "a|b `c` <script> \\ &\nnext"
    events = [
        Event(1, 1.0, "r", "node.began", "web1", None, "", {"way": "forward"}),
        Event(2, 2.0, "r", "node.ended", "web1", None, why, {"outcome": "failed", "why": why}),
    ]
    row = next(line for line in summary(Story(events)).splitlines() if line.startswith("| web1"))
    assert row == "| web1 |  | forward | failed | 1.00 s | a\\|b \\`c\\` &lt;script> \\\\ &amp; next |"
    assert len(re.findall(r"(?<!\\)\|", row)) == 7


def test_gitlab_sections_are_opened_and_closed_and_the_dotenv_is_written(tmp_path: Path) -> None:
    out = io.StringIO()
    report = GitlabReport(out, environ={"GITLAB_DOTENV": str(tmp_path / "out.env")}, clock=lambda: 1234.4)
    for event in kit.put_back():
        report.event(event)
    report.progress({})
    report.close()
    text = out.getvalue()
    sections = re.findall(r"\x1b\[0Ksection_(start|end):(\d+):(\w+)\r\x1b\[0K(.*)", text)
    marks = [f"{mark} {name}" for mark, _, name, _ in sections]
    one, two = "drainctl_wave_1", "drainctl_wave_2"
    assert marks == [f"start {one}", f"end {one}", f"start {two}", f"end {two}"]
    assert sections[0][3] == "wave 1 of 3: web1"
    assert sections[1][1] == "1234"
    assert text.rindex("section_end") < text.index("going back")
    expected = f"DRAINCTL_ROLLOUT={kit.ROLLOUT}\nDRAINCTL_OUTCOME=put-back\nDRAINCTL_EXIT=1\n"
    assert (tmp_path / "out.env").read_text() == expected


def test_gitlab_an_interrupted_rollout_closes_its_section(tmp_path: Path) -> None:
    out = io.StringIO()
    report = GitlabReport(out, environ={"GITLAB_DOTENV": str(tmp_path / "out.env")})
    for event in kit.interrupted()[:-1]:
        report.event(event)
    report.close()
    assert out.getvalue().count("section_start") == out.getvalue().count("section_end") == 2
    assert "DRAINCTL_OUTCOME=interrupted\nDRAINCTL_EXIT=\n" in (tmp_path / "out.env").read_text()


# ---------------------------------------------------------------- no rollout began


def test_a_report_that_heard_nothing_writes_nothing(tmp_path: Path) -> None:
    names = {name: str(tmp_path / name) for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT", "GITLAB_DOTENV")}
    GithubReport(io.StringIO(), environ=names, past=kit.interrupted()).close()
    GitlabReport(io.StringIO(), environ=names, past=kit.interrupted()).close()
    assert list(tmp_path.iterdir()) == []


def test_github_is_told_why_no_rollout_began(tmp_path: Path) -> None:
    out, summary_file, output = io.StringIO(), tmp_path / "summary.md", tmp_path / "output"
    environ = {"GITHUB_STEP_SUMMARY": str(summary_file), "GITHUB_OUTPUT": str(output)}
    why = "lb1: no answer\nlb2 | no ::answer::\x1b[1m"
    github_report.refused(why, "start them", 5, began=False, stream=out, environ=environ)
    assert out.getvalue() == (
        "::error title=drainctl::lb1: no answer%0Alb2 | no ::answer:: [1m%0Ahint: start them\n"
    )
    assert output.read_text() == "rollout=\noutcome=refused\nexit=5\n"
    lines = summary_file.read_text().splitlines()
    assert lines[0] == "### drainctl: refused (exit 5)"
    assert lines[2:4] == ["- lb1: no answer", "- lb2 \\| no ::answer:: \\[1m"]
    assert "hint: start them" in lines


def test_an_error_after_the_begin_adds_its_code_to_what_the_report_wrote(tmp_path: Path) -> None:
    output, dotenv = tmp_path / "output", tmp_path / "out.env"
    environ = {"GITHUB_OUTPUT": str(output), "GITLAB_DOTENV": str(dotenv)}
    for report in (
        GithubReport(io.StringIO(), environ=environ),
        GitlabReport(io.StringIO(), environ=environ),
    ):
        for event in kit.interrupted()[:-1]:
            report.event(event)
        report.close()
    github_report.refused("the lease is lost", None, 3, began=True, stream=io.StringIO(), environ=environ)
    gitlab_report.refused(3, began=True, environ=environ)
    assert output.read_text() == f"rollout={kit.ROLLOUT}\noutcome=interrupted\nexit=\nexit=3\n"
    assert dotenv.read_text().splitlines()[1:] == [
        "DRAINCTL_OUTCOME=interrupted",
        "DRAINCTL_EXIT=",
        "DRAINCTL_EXIT=3",
    ]


def test_gitlab_is_told_that_no_rollout_began(tmp_path: Path) -> None:
    gitlab_report.refused(4, began=False, environ={"GITLAB_DOTENV": str(tmp_path / "out.env")})
    expected = "DRAINCTL_ROLLOUT=\nDRAINCTL_OUTCOME=refused\nDRAINCTL_EXIT=4\n"
    assert (tmp_path / "out.env").read_text() == expected
