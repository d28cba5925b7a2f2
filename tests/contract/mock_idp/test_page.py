"""The mock's page in a real browser, driven over the WebDriver protocol (W3C)."""

import re
import shutil
import subprocess

import httpx
import jwt
import pytest

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver, section 12: the web element identifier

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


class Browser:
    """One session of Chromium."""

    def __init__(self, driver, folder):
        self._http = httpx.Client(base_url=driver, timeout=30, trust_env=False)
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={folder}",
        ]
        options = {"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}
        self._session = (
            f"/session/{self._post('/session', capabilities={'alwaysMatch': options})['sessionId']}"
        )

        # A click returns before the page that it leads to is there.
        self._post(f"{self._session}/timeouts", implicit=10_000)

    def _post(self, path, **body):
        answer = self._http.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()["value"]

    def open(self, url):
        self._post(f"{self._session}/url", url=url)

    def find(self, selector):
        return self._post(f"{self._session}/element", using="css selector", value=selector)[ELEMENT]

    def click(self, selector):
        self._post(f"{self._session}/element/{self.find(selector)}/click")

    def write(self, selector, text):
        element = self.find(selector)
        self._post(f"{self._session}/element/{element}/clear")
        self._post(f"{self._session}/element/{element}/value", text=text)

    def read(self, selector, name):
        """A property of an element, which is waited for."""
        answer = self._http.get(f"{self._session}/element/{self.find(selector)}/property/{name}")
        assert answer.is_success, answer.text
        return answer.json()["value"]

    def run(self, script):
        return self._post(f"{self._session}/execute/sync", script=script, args=[])

    def console(self):
        return [entry["message"] for entry in self._post(f"{self._session}/se/log", type="browser")]

    def close(self):
        self._http.delete(self._session)
        self._http.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium under chromedriver on a free port."""
    profile = tmp_path_factory.mktemp("chromium")
    program = shutil.which("chromedriver")
    if program is None:
        pytest.skip("browser: no chromedriver on PATH")
    with subprocess.Popen(
        [program, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as driver:
        try:
            line = next(line for line in driver.stdout if "started successfully on port" in line)
            port = re.search(r"on port (\d+)", line)[1]
            browser = Browser(f"http://127.0.0.1:{port}", profile)
            try:
                yield browser
            finally:
                browser.close()
        finally:
            driver.terminate()


def test_a_token_is_minted_on_the_page(browser, idp):
    """Fill the form, press the button, read a token that verifies; the console has no complaint, such as of the policy."""
    browser.open(f"{idp.url}/_mock/")
    browser.write("#repository", "octo-org/by-form")
    browser.write("#audience", "https://id.example.com")
    browser.write("#environment", "production")
    browser.click("#immutableSub")
    browser.click("button")

    token = browser.read("#token", "value")
    claims = jwt.decode(
        token, idp.state.ring.signing.private.public_key(), ["RS256"], audience="https://id.example.com"
    )
    assert claims["sub"].startswith("repo:octo-org@")
    assert claims["sub"].endswith(":environment:production")
    assert browser.run("return getComputedStyle(document.body).maxWidth") != "none"
    assert [message for message in browser.console() if "favicon" not in message] == []


def test_a_problem_is_told_on_the_page(browser, idp):
    """The sentence of the API, and what was typed is still there."""
    browser.open(f"{idp.url}/_mock/")
    browser.write("#repository", "nonsense")
    browser.click("button")

    assert browser.read("[role=alert]", "innerText") == "`repository` must be OWNER/REPO."
    assert browser.read("#repository", "value") == "nonsense"
