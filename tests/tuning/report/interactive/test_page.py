"""The interactive page: one file, scripts by their hashes, nothing of a stranger's run, and drawn by a browser."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from reported_sweeps import LABELS, SCRIPT, Page

from lorasweep.tuning.record.config import SweepConfig
from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.report.interactive.page import interactive_page
from lorasweep.tuning.report.page import write_report
from lorasweep.tuning.report.reading import read_sweep

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PLOTS = (
    *("parallel_coordinates", "history", "learning_curves", "slices", "importances", "adapter_sizes"),
    "confusion",
)


@pytest.fixture(scope="module")
def page(finished: SweepFolder) -> str:
    """The finished sweep's page."""
    return interactive_page(read_sweep(finished))


def scripts_of(page: str) -> list[tuple[str, str]]:
    """(attributes, content) of each script, as a browser divides them."""
    return re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)


def test_only_known_scripts_run(page: str) -> None:
    """Plotly and our own by their hashes, the figures as data; nothing is loaded, nothing is sent."""
    data, plotly, own = scripts_of(page)
    assert "application/json" in data[0]
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert found is not None
    policy = html.unescape(found[1])
    for _, code in (plotly, own):
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.count("sha256-") == 2
    assert "'unsafe-inline'" not in policy.split("script-src")[1]
    assert "default-src 'none'; form-action 'none'" in policy
    assert "showSendToCloud: false" in own[1]
    assert len(page) < 6_000_000
    rest = page.replace(plotly[1], "").replace(data[1], "")
    assert "http" not in rest.replace("http-equiv", "")


def test_texts_of_strangers_are_data(page: str) -> None:
    """In the figures as JSON without markup, in the table escaped."""
    figures = json.loads(scripts_of(page)[0][1])
    assert tuple(figures) == PLOTS
    assert "<" not in scripts_of(page)[0][1]
    labels = figures["confusion"]["layout"]["xaxis"]["ticktext"]
    assert len(labels) == len(LABELS)
    assert labels[2] == "=1+1"
    assert labels[-1].startswith("z &lt;script&gt;")
    assert SCRIPT not in json.dumps(figures)
    table = Page(page[: page.index("<script")])
    assert SCRIPT in table.text
    assert not {"script", "img", "iframe", "a"} & {tag for tag, _ in table.tags}


def test_the_tables_rows_are_the_lines(page: str) -> None:
    """By which the browser filters it: the best trial's line is the last; one without a score has none."""
    lines = re.findall(r'<tr data-line="(\d*)"[^>]*><td>(t\d+)', page)
    assert lines == [("3", "t001"), ("2", "t004"), ("1", "t000"), ("0", "t003"), ("", "t002"), ("", "t005")]


def test_a_sweep_without_a_score(tmp_path: Path) -> None:
    """Said, and no empty plot."""
    folder = SweepFolder(tmp_path, "new")
    folder.create(SweepConfig(name="new"))
    page = interactive_page(read_sweep(folder))
    assert "No trial has a score yet" in page
    assert "plot-" not in page[: page.index("<script")]


def test_it_is_written_beside_the_report(finished: SweepFolder, tmp_path: Path) -> None:
    """Both paths are told."""
    out = tmp_path / "new" / "sweep.html"
    assert write_report(finished, out, interactive=True) == [out, tmp_path / "new" / "sweep-interactive.html"]
    assert "plotly" in (tmp_path / "new" / "sweep-interactive.html").read_text(encoding="utf-8")
    assert write_report(finished, out) == [out]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_draws_it(page: str, tmp_path: Path) -> None:
    """All plots, in a frame without an origin as MLflow's pages show it, under the page's own policy."""
    frame = (
        '<iframe id="f" sandbox="allow-scripts" width="1100" height="900"></iframe>'
        f"<script>f.srcdoc = {json.dumps(page).replace('<', chr(92) + 'u003c')};</script>"
    )
    (tmp_path / "frame.html").write_text(frame, encoding="utf-8")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    found = {}
    for name in ("page", "frame"):
        command = [
            BROWSER or "",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-unsafe-swiftshader",
        ]
        command += ["--disable-background-networking", "--disable-sync", "--no-first-run"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--timeout=8000"]
        command += ["--dump-dom", (tmp_path / f"{name}.html").as_uri()]
        found[name] = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert "Content Security Policy" not in found[name].stderr
        assert "Uncaught" not in found[name].stderr
    drawn = found["page"].stdout
    for name in PLOTS:
        start = drawn.index(f'id="plot-{name}"')
        assert "main-svg" in drawn[start : start + 2000], name
