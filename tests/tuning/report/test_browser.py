"""What a person sees of a finished sweep in MLflow's interface, in a real browser: Debian's Chromium."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from mlflow_servers import answers, free_port
from whole_sweeps import RUN, lorasweep, started

from lorasweep.tuning.record.folder import SweepFolder
from lorasweep.tuning.record.words import setting_text
from lorasweep.tuning.report.page import write_report

pytestmark = pytest.mark.slow

NAME = "seen"
# It asks nobody outside, and keeps nothing.
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
FLAGS += ["--disable-dev-shm-usage", "--window-size=2600,1000"]


class Browser:
    """A Chromium that looks for things until they are there."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def found(self, path: str) -> list[Any]:
        """Elements of an XPath that can be seen now."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.common.by import By

        try:
            return [found for found in self.driver.find_elements(By.XPATH, path) if found.is_displayed()]
        except StaleElementReferenceException:  # the page was drawn anew meanwhile
            return []

    def wait(self, true: Any, what: str) -> Any:
        """Look until something is true; what is on the page is told if it never is."""
        from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.driver, 60, ignored_exceptions=[StaleElementReferenceException])
        try:
            return waiting.until(lambda _: true())
        except TimeoutException:
            text = self.driver.find_element(By.TAG_NAME, "body").text
            pytest.fail(f"{what}: not at {self.driver.current_url}, which shows:\n{text}")

    def see(self, path: str) -> Any:
        """The first element of an XPath, once it can be seen."""
        return self.wait(lambda: next(iter(self.found(path)), None), path)

    def click(self, path: str) -> None:
        """Click on an element, once it can be seen and nothing lies over it."""
        from selenium.common.exceptions import ElementClickInterceptedException

        def done() -> bool:
            try:
                self.see(path).click()
            except ElementClickInterceptedException:
                return False
            return True

        self.wait(done, path)

    def columns(self) -> list[str]:
        """The table's columns, from left to right."""
        heads = self.found("//*[contains(concat(@class, ' '), 'ag-header-cell ')][normalize-space()]")
        heads.sort(key=lambda head: head.rect["x"])
        return [head.text for head in heads]

    def run_names(self) -> list[str]:
        """The runs of the table, from top to bottom."""
        rows = self.found("//*[@role='row' and @row-index][.//a[contains(@href, '/runs/')]]")
        rows.sort(key=lambda row: int(row.get_attribute("row-index")))
        return [row.find_element("xpath", ".//a[contains(@href, '/runs/')]").text for row in rows]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("Chromium is not installed here (apt-get install chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(programs[0])
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(programs[1])))
    yield Browser(driver)
    driver.quit()


@pytest.fixture(scope="module")
def swept(place: Path, browser: Browser) -> SweepFolder:
    """A finished sweep, whose winner is registered; made only where there is a browser to see it."""
    few = ["--trials", "5", "--epochs", "2", "--concurrency", "1", "--cpus-per-trial", "1", "--keep", "1"]
    lorasweep(place, *RUN, *few, "--name", NAME)
    return SweepFolder(place / "mlruns", NAME)


@pytest.fixture(scope="module")
def printed(place: Path, swept: SweepFolder) -> Iterator[dict[str, str]]:
    """What `lorasweep ui` prints: name → link, while it serves."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with started(place, "ui", "--port", str(port)) as process:
        assert process.stdout is not None
        said = list(takewhile(str.strip, process.stdout))
        links = dict(re.findall(r"^(\S.*?)  +(http\S+)$", "".join(said), re.MULTILINE))
        assert len(links) == len(said)
        assert next(iter(links)) == "sweeps"
        assert answers(f"{address}/health"), "the links are told before anybody answers"
        yield links
        # As Ctrl-C in a terminal, which the whole group of processes gets.
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")


@pytest.fixture(scope="module")
def interface(printed: dict[str, str]) -> str:
    """Where MLflow's pages are."""
    return printed["sweeps"].partition("/#/")[0]


@pytest.fixture
def newcomer(browser: Browser, interface: str) -> None:
    """A browser that was never here: what an earlier test unfolded or sorted, MLflow's page remembers."""
    browser.driver.get(f"{interface}/health")
    browser.driver.execute_script("localStorage.clear(); sessionStorage.clear()")


@pytest.fixture
def runs(browser: Browser, newcomer: None, printed: dict[str, str]) -> None:
    """The sweeps' page, as its printed link opens it."""
    browser.driver.get(printed["sweeps"])
    browser.wait(lambda: browser.run_names() == [NAME], "the sweep's run alone")


SETTINGS = ["rank", "target_modules", "alpha", "rate"]
ENDS = ["size", "lorasweep.ended"]


def test_the_trials_unfold_under_the_sweep(browser: Browser, swept: SweepFolder, runs: None) -> None:
    browser.click(
        f"//*[@role='row'][.//a[normalize-space()='{NAME}']]//button[contains(@class, 'icon-only')]"
    )
    trials = sorted(record.id for record in swept.trials())
    browser.wait(lambda: len(browser.run_names()) == 1 + len(trials), "the trials")
    names = browser.run_names()
    assert names[0] == NAME
    assert sorted(name.split()[0] for name in names[1:]) == trials
    first = ["Run Name", "Created", "Duration", "score", "test/accuracy", "test/macro_f1"]
    assert browser.columns() == [*first, *SETTINGS, *ENDS]


def test_the_best_trials_stand_first(
    browser: Browser, swept: SweepFolder, newcomer: None, printed: dict[str, str]
) -> None:
    browser.driver.get(printed["trials by accuracy"])
    records = {record.id: record for record in swept.trials()}
    browser.wait(lambda: len(browser.run_names()) == len(records), "the trials, without their sweep")
    shown = [records[name.split()[0]] for name in browser.run_names()]
    scores = [record.score or 0.0 for record in shown]
    assert scores == sorted(scores, reverse=True)
    result = swept.result()
    assert result is not None
    assert result.winner is not None
    ends = {record.id: record.state for record in shown} | {result.winner.id: "winner"}
    assert [name.split()[1] for name in browser.run_names()] == [ends[record.id] for record in shown]
    assert {name.split()[-1] for name in browser.run_names()} == {f"({NAME})"}
    first = ["Run Name", "Created", "Duration", "score", "val_macro_f1", "val_loss"]
    assert browser.columns() == [*first, *SETTINGS, "lorasweep.sweep", *ENDS]
    # Rounded, where the params have all their digits.
    rates = [cell.text for cell in browser.found("//*[@role='gridcell' and contains(@col-id, 'rate')]")]
    assert rates
    assert {setting_text(record.hyperparameters.learning_rate) for record in shown} >= set(rates)


def test_the_menu_has_a_view_for_the_sweep(browser: Browser, swept: SweepFolder, runs: None) -> None:
    browser.click("//button[normalize-space()='Sweeps']")
    browser.click(f"//*[@role='menuitem' or @role='menuitemcheckbox'][contains(., '{NAME}')]")
    browser.wait(lambda: len(browser.run_names()) == len(swept.trials()), "the sweep's trials")
    assert "viewStateShareKey=sweep-seen" in browser.driver.current_url


def test_the_sweep_describes_itself(browser: Browser, swept: SweepFolder, runs: None) -> None:
    result = swept.result()
    assert result is not None
    assert result.winner is not None
    browser.click(f"//a[normalize-space()='{NAME}' and contains(@href, '/runs/')]")
    assert f"{result.winner.test.accuracy:.1%}" in browser.see("//p[contains(., 'Winner:')]").text
    # From the description one comes to the trial, on a page of its own.
    link = browser.see(f"//p[contains(., 'Winner:')]//a[normalize-space()='{result.winner.id}']")
    browser.driver.get(link.get_attribute("href"))
    assert f"{result.winner.test.accuracy:.1%}" in browser.see("//p[contains(., 'Winner of')]").text
    browser.see(f"//h1[contains(., '{result.winner.id} ')] | //h2[contains(., '{result.winner.id} ')]")


def test_the_plots_of_the_sweep_are_drawn(browser: Browser, runs: None) -> None:
    """MLflow shows the report in a frame, where its scripts run and all plots appear."""
    browser.click(f"//a[normalize-space()='{NAME}' and contains(@href, '/runs/')]")
    browser.click("//*[@role='tab' and normalize-space()='Artifacts']")
    browser.click("//*[text()='report']")
    browser.click("//*[text()='report.html']")
    browser.driver.switch_to.frame(browser.see("//iframe"))
    try:
        browser.wait(lambda: len(browser.found("//*[contains(@class, 'main-svg')]")) > 6, "the plots")
        assert NAME in browser.see("//h1").text
    finally:
        browser.driver.switch_to.default_content()


def test_the_winner_is_the_registered_models_champion(
    browser: Browser, swept: SweepFolder, interface: str
) -> None:
    from selenium.common.exceptions import ElementClickInterceptedException

    result = swept.result()
    assert result is not None
    assert result.winner is not None
    browser.driver.get(f"{interface}/#/models")

    def opened() -> bool:
        # MLflow tells each new visitor of its registry, sooner or later.
        for button in browser.found("//*[@role='dialog']//button[normalize-space()='Try it now']"):
            button.click()
        with suppress(ElementClickInterceptedException):
            for link in browser.found(f"//a[normalize-space()='{NAME}' and contains(@href, '/models/')]"):
                link.click()
        return f"/models/{NAME}" in browser.driver.current_url

    browser.wait(opened, "the model's page")
    row = browser.see(
        "//tr[.//a[contains(., 'Version 1')]] | //*[@role='row'][.//a[contains(., 'Version 1')]]"
    )
    assert "champion" in row.text
    browser.click("//a[normalize-space()='Version 1']")
    browser.see("//*[contains(text(), 'champion')]")
    browser.see(f"//p[contains(., '{result.winner.test.accuracy:.1%}') and contains(., 'rank ')]")
    # From the version one comes to the trial that it was.
    browser.click(f"//a[starts-with(normalize-space(), '{result.winner.id} ') and contains(@href, '/runs/')]")
    browser.see(f"//h1[contains(., '{result.winner.id}')] | //h2[contains(., '{result.winner.id}')]")


@pytest.fixture
def report(browser: Browser, finished: SweepFolder, tmp_path: Path) -> Iterator[Callable[[int], None]]:
    """The page of a finished sweep; sets the width of the screen that shows it, in pixels."""
    page = write_report(finished, tmp_path / "page.html")

    def resize(width: int) -> None:
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    resize(1280)
    browser.driver.get(page.as_uri())
    browser.wait(
        lambda: browser.driver.execute_script("return !!document.querySelector('.axis-brush')"), "plots"
    )
    yield resize
    browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_report_on_a_screen_and_on_a_phone(browser: Browser, report: Callable[[int], None]) -> None:
    """Ranges filter the trials. On 400 pixels nothing is cut: what is wider scrolls, from the keyboard too."""
    from selenium.webdriver.common.action_chains import ActionChains

    look = browser.driver.execute_script
    axis = browser.see("(//*[@id='plot-parallel_coordinates']//*[contains(@class, 'axis-brush')])[last()]")
    look("arguments[0].scrollIntoView({block: 'center'})", axis)
    # From the middle of the scores' axis to its very end, where the best trial is.
    drag, way = ActionChains(browser.driver).move_to_element(axis), int(axis.rect["height"] / 2) - 4
    drag.click_and_hold().move_by_offset(0, 20 - way).move_by_offset(0, -20).release().perform()
    browser.wait(lambda: look("return shown.textContent") == "2 of 6 trials", "the filter")
    rows = "return [...document.querySelectorAll('#trials tbody tr:not([hidden]) td:first-child')]"
    assert look(f"{rows}.map((cell) => cell.textContent)") == ["t001", "t004"]

    report(400)
    slices = "const drawn = document.getElementById('plot-slices')._fullLayout"
    browser.wait(lambda: look(f"{slices}; return drawn.grid.columns") == 1, "panels below each other")
    assert look(f"{slices}; return drawn.dragmode") is False, "a finger on a plot moves the page"
    assert look("return document.documentElement.scrollWidth") == 400
    wide = "[...document.querySelectorAll('.wide')].filter((box) => box.scrollWidth > box.clientWidth)"
    plots = look(
        f"return {wide}.map((box) => box.firstElementChild.id).filter((id) => id.startsWith('plot'))"
    )
    assert plots == ["plot-parallel_coordinates"]
    assert look(f"return {wide}.every((box) => box.tabIndex === 0)")
    assert look("return shown.textContent") == "2 of 6 trials"
    assert not browser.found("//td[normalize-space()='early stopping']")
    browser.click("//summary[contains(., 'Data, model and budget')]")
    browser.see("//td[normalize-space()='early stopping']")
