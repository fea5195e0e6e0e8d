"""What a person sees of a finished sweep in MLflow's interface, in a real browser: Debian's Chromium."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow_servers import answers, free_port, wait_until
from whole_sweeps import RUN, lorasweep, start

from tuning.mlflow_store import connect
from tuning.record import SweepFolder

pytestmark = pytest.mark.slow

NAME = "seen"
# It asks nobody outside, and keeps nothing.
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
FLAGS += ["--disable-dev-shm-usage", "--window-size=1700,1000"]


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
def interface(place: Path, swept: SweepFolder) -> Iterator[str]:
    """`lorasweep ui`: its address."""
    port = free_port()
    process = start(place, "ui", "--port", str(port))
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(f"{address}/health"), process, "lorasweep ui")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def runs(browser: Browser, swept: SweepFolder, interface: str) -> str:
    """The address of the sweeps' experiment, with its runs on the page."""
    store = connect(f"sqlite:///{swept.mlruns / 'mlflow.db'}")
    experiment = store.get_experiment_by_name("lorasweep").experiment_id
    address = f"{interface}/#/experiments/{experiment}/runs?workflowType=machine_learning"
    # What an earlier test unfolded or sorted, MLflow's page remembers.
    browser.driver.get(f"{interface}/health")
    browser.driver.execute_script("localStorage.clear(); sessionStorage.clear()")
    browser.driver.get(address)
    browser.wait(lambda: browser.run_names() == [NAME], "the sweep's run alone")
    return address


def test_the_trials_unfold_under_the_sweep(browser: Browser, swept: SweepFolder, runs: str) -> None:
    browser.click(
        f"//*[@role='row'][.//a[normalize-space()='{NAME}']]//button[contains(@class, 'icon-only')]"
    )
    trials = sorted(record.id for record in swept.trials())
    browser.wait(lambda: len(browser.run_names()) == 1 + len(trials), "the trials")
    names = browser.run_names()
    assert names[0] == NAME
    assert sorted(names[1:]) == trials


def test_the_trials_can_be_sorted_by_their_score(browser: Browser, swept: SweepFolder, runs: str) -> None:
    browser.click("//button[@data-testid='sort-select-dropdown']")
    browser.click("//*[@data-testid='sort-select-score']")
    trials = {record.id: record.score or 0.0 for record in swept.trials()}
    # The sweep itself stands among them with its best score.
    browser.wait(lambda: len(browser.run_names()) == 1 + len(trials), "all runs, sorted")
    shown = [trials[name] for name in browser.run_names() if name in trials]
    assert shown == sorted(trials.values(), reverse=True)


def test_a_plot_of_the_sweep_is_drawn(browser: Browser, runs: str) -> None:
    browser.click(f"//a[normalize-space()='{NAME}' and contains(@href, '/runs/')]")
    browser.click("//*[@role='tab' and normalize-space()='Artifacts']")
    browser.click("//*[text()='plots']")
    browser.click("//*[text()='learning_curves.png']")

    def drawn() -> bool:
        widths = [
            browser.driver.execute_script("return arguments[0].naturalWidth", picture)
            for picture in browser.found("//img[not(contains(@src, '.svg'))]")
        ]
        return max(widths, default=0) > 400

    browser.wait(drawn, "the picture")


def test_the_winner_is_the_registered_models_champion(
    browser: Browser, swept: SweepFolder, interface: str
) -> None:
    result = swept.result()
    assert result is not None
    assert result.winner is not None
    browser.driver.get(f"{interface}/#/models")
    # MLflow tells each new visitor of its registry.
    browser.click("//*[@role='dialog']//button[normalize-space()='Try it now']")
    browser.click(f"//a[normalize-space()='{NAME}' and contains(@href, '/models/')]")
    row = browser.see(
        "//tr[.//a[contains(., 'Version 1')]] | //*[@role='row'][.//a[contains(., 'Version 1')]]"
    )
    assert "champion" in row.text
    browser.click("//a[normalize-space()='Version 1']")
    browser.see("//*[contains(text(), 'champion')]")
    # From the version one comes to the trial that it was.
    browser.click(f"//a[normalize-space()='{result.winner.id}' and contains(@href, '/runs/')]")
    browser.see(f"//h1[contains(., '{result.winner.id}')] | //h2[contains(., '{result.winner.id}')]")
