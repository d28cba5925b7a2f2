"""The mock's page in a real browser, driven over the WebDriver protocol (W3C)."""

import re
import shlex
import shutil
import subprocess
import time

import httpx
import jwt
import pytest

from kit.processes import PATIENCE_SECONDS

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver, section 12: the web element identifier

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


class Browser:
    """A session of Chromium."""

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

        # A click returns before the next page is loaded.
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

    def submit(self, selector):
        """Click an element that leads to another page, and wait until that page is loaded."""
        self.run("document.isLeft = true")
        self.click(selector)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.run("return !document.isLeft && document.readyState === 'complete'"):
            assert time.monotonic() < deadline, f"{selector} leads nowhere"

    def write(self, selector, text):
        element = self.find(selector)
        self._post(f"{self._session}/element/{element}/clear")
        self._post(f"{self._session}/element/{element}/value", text=text)

    def read(self, selector, name):
        """Return a property of an element, after waiting for the element."""
        answer = self._http.get(f"{self._session}/element/{self.find(selector)}/property/{name}")
        assert answer.is_success, answer.text
        return answer.json()["value"]

    def press(self, keys):
        """Send keys to the focused element."""
        element = self._http.get(f"{self._session}/element/active").json()["value"][ELEMENT]
        self._post(f"{self._session}/element/{element}/value", text=keys)

    def run(self, script):
        return self._post(f"{self._session}/execute/sync", script=script, args=[])

    def on_a_phone(self, width=390):
        """Emulate a phone's screen of the given width."""
        metrics = {"width": width, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        self._post(
            f"{self._session}/goog/cdp/execute", cmd="Emulation.setDeviceMetricsOverride", params=metrics
        )

    def on_a_desk(self):
        """Restore the window's own size."""
        self._post(f"{self._session}/goog/cdp/execute", cmd="Emulation.clearDeviceMetricsOverride", params={})

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
    """The form mints a token that verifies, and the console shows no error, for example of the content security policy."""
    browser.open(f"{idp.url}/_mock/")
    browser.write("#repository", "octo-org/by-form")
    browser.write("#audience", "https://id.example.com")
    browser.write("#environment", "production")
    browser.click("#immutableSub")
    browser.submit("#mint")

    token = browser.read("#token", "value")
    claims = jwt.decode(
        token, idp.state.ring.signing.private.public_key(), ["RS256"], audience="https://id.example.com"
    )
    assert claims["sub"].startswith("repo:octo-org@")
    assert claims["sub"].endswith(":environment:production")
    assert browser.run("return getComputedStyle(document.body).maxWidth") != "none"
    assert browser.console() == []


def test_a_problem_is_told_on_the_page(browser, idp):
    """The page shows the API's message and keeps the user's input."""
    browser.open(f"{idp.url}/_mock/")
    browser.write("#repository", "nonsense")
    browser.submit("#mint")

    assert browser.read("[role=alert]", "innerText") == "`repository` must be OWNER/REPO."
    assert browser.read("#repository", "value") == "nonsense"


CONTROL, ENTER, TAB, SPACE = "\ue009", "\ue007", "\ue004", " "  # WebDriver, section 17.4.2


@pytest.mark.parametrize(("tabs", "field"), [(3, "token"), (4, "variables")])
def test_a_text_is_made_and_copied_by_keyboard(browser, idp, tabs, field):
    """With the keyboard alone, a user can create a text, whose Copy button then has the focus, and copy it."""
    browser.open(f"{idp.url}/_mock/")
    browser.write("#audience", "https://id.example.com")
    browser.run("document.isLeft = true; document.getElementById('audience').focus()")
    for _ in range(tabs - 1):
        browser.press(TAB)
    browser.press(SPACE)

    button = f"[data-copies={field}]"
    assert browser.read(f"{button}:focus", "innerText") == "Copy"
    browser.press(ENTER)
    assert browser.read(button, "innerText") == "Copied"


@pytest.mark.parametrize(
    ("button", "field", "beginning"), [("#mint", "#token", "eyJ"), ("#start-job", "#variables", "export ")]
)
def test_a_text_is_copied(browser, idp, button, field, beginning):
    """A text can be copied and pasted; the page's content security policy allows its own script."""
    browser.console()
    browser.open(f"{idp.url}/_mock/")
    browser.submit(button)
    text = browser.read(field, "value")
    browser.click(f"[data-copies={field[1:]}]")
    assert browser.read(f"[data-copies={field[1:]}]", "innerText") == "Copied"

    browser.write("#audience", f"{CONTROL}v")

    assert text.startswith(beginning)
    assert browser.read("#audience", "value") == text.replace("\n", " ")
    assert browser.console() == []


def test_a_job_is_started_on_the_page(browser, idp):
    """The started job's variables get a token from the endpoint, until the job is ended."""
    browser.open(f"{idp.url}/_mock/")
    browser.write("#repository", "octo-org/by-form")
    browser.submit("#start-job")

    lines = browser.read("#variables", "value").splitlines()
    variables = dict(shlex.split(line)[1].split("=", 1) for line in lines)
    ask = {
        "url": variables["ACTIONS_ID_TOKEN_REQUEST_URL"],
        "headers": {"Authorization": f"bearer {variables['ACTIONS_ID_TOKEN_REQUEST_TOKEN']}"},
        "trust_env": False,
    }
    token = httpx.get(**ask).json()["value"]
    assert jwt.decode(token, options={"verify_signature": False})["repository"] == "octo-org/by-form"

    browser.submit("[value=end-job]")
    assert httpx.get(**ask).status_code == 401


def test_a_fault_is_set_on_the_page(browser, idp):
    """A planned fault is shown and takes effect until it is cleared."""
    browser.open(f"{idp.url}/_mock/")
    browser.click("#endpoint option:nth-of-type(3)")
    browser.write("#status", "503")
    browser.write("#times", "2")
    browser.submit("#plan-fault")

    assert browser.read("#faults", "innerText") == "jwks: 503 2 more"
    assert httpx.get(f"{idp.url}/.well-known/jwks", trust_env=False).status_code == 503
    browser.submit("#clear-faults")
    assert browser.read("#faults", "innerText") == "none"
    assert httpx.get(f"{idp.url}/.well-known/jwks", trust_env=False).status_code == 200


def test_the_clock_is_moved_and_keys_are_rotated_on_the_page(browser, idp):
    """Changes to the clock and keys are shown at once, and reloading the page does not repeat them."""
    browser.open(f"{idp.url}/_mock/")
    before = browser.read("#signing", "innerText")
    browser.write("#offset", "-7200")
    browser.submit("#shift")
    assert browser.read("#clock", "innerText").endswith(", -7200 s from this machine's clock")
    browser.submit("#freeze")
    assert ", frozen" in browser.read("#clock", "innerText")
    browser.submit("#real-time")
    assert "machine" not in browser.read("#clock", "innerText")

    browser.submit("#rotate")
    after = browser.read("#signing", "innerText")
    assert after != before
    assert {before, after} <= set(browser.read("#published", "innerText").split(", "))
    browser.submit("#reload")
    browser.submit("#retire")
    assert browser.read("#published", "innerText") == after == idp.state.ring.signing.kid


def test_the_page_fits_a_phone(browser, idp):
    """A page with a long audience in the log, a token and a job fits a phone's screen."""
    job = idp.job()
    bearer = {"Authorization": f"bearer {job['requestToken']}"}
    audience = f"https://id.example.com/{'a-long-path' * 30}"
    httpx.get(f"{job['requestUrl']}&audience={audience}", headers=bearer, trust_env=False).raise_for_status()
    idp.plan_fault("discovery", fault="foreign-jwks-uri")
    browser.on_a_phone()
    try:
        for button, field in (("#mint", "#token"), ("#start-job", "#variables")):
            browser.open(f"{idp.url}/_mock/")
            browser.submit(button)
            browser.find(field)
            width = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
            assert width == [390, 390]
        assert audience in browser.read("body", "innerText")
        small = "return [...document.querySelectorAll('button')].filter(it => it.getBoundingClientRect().height < 30).length"
        assert browser.run(small) == 0
    finally:
        browser.on_a_desk()


@pytest.mark.parametrize("width", [320, 768, 1280])
def test_a_long_audience_does_not_widen_the_page(browser, idp, width):
    """A long audience does not widen the page, from the smallest phone to a desktop."""
    job = idp.job()
    bearer = {"Authorization": f"bearer {job['requestToken']}"}
    httpx.get(f"{job['requestUrl']}&audience={'x' * 400}", headers=bearer, trust_env=False).raise_for_status()
    browser.on_a_phone(width)
    try:
        browser.open(f"{idp.url}/_mock/")
        assert browser.run("return document.documentElement.scrollWidth") == width
    finally:
        browser.on_a_desk()
