"""The page in a real browser: opened, sorted, filtered, and two rows compared."""

import os
import shutil

import pytest

from warmstart.report.collect import collect
from warmstart.report.page import render

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    # CI installs the browser and must not skip this test.
    pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="no Chromium is installed"),
]


@pytest.fixture
def opened(attack, tmp_path):
    """``opened()``: the page of all runs in a browser; what goes wrong in it is in ``said``."""
    from playwright.sync_api import sync_playwright

    assert CHROMIUM is not None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def open_page():
            file = tmp_path / "report.html"
            file.write_text(render(collect([tmp_path]), title=attack), encoding="utf-8")
            page = browser.new_page()
            page.said = []
            page.on("pageerror", lambda error: page.said.append(str(error)))
            page.on("console", lambda message: page.said.append(message.text) if message.type == "error" else None)
            page.on("request", lambda request: page.said.append(request.url) if request.url[:4] == "http" else None)
            page.goto(file.as_uri())
            page.wait_for_selector("body[data-ready]", timeout=60_000)
            return page

        yield open_page
        browser.close()


@pytest.fixture
def page(opened, write_run, attack):
    attack += " again again"  # a repetition
    write_run("a", seed=1, scores=(10.0, 20.0, 50.0), nll=(2.0, 3.0, 4.0), text=attack)
    write_run("b", seed=2, scores=(20.0, 40.0, 30.0), nll=(2.0, 3.0, 4.0), text=attack)
    write_run("c", encoder="roberta", scores=(1.0, 90.0, 2.0), nll=(2.0, None, 4.0), text=attack)
    write_run("d", status="failed", text=attack)
    return opened()


def test_on_a_narrow_screen_no_text_has_one_letter_per_line(page):
    page.set_viewport_size({"width": 420, "height": 900})
    for cell in ("#others td.text", "#difference td.text", "#samples td.text"):
        assert page.locator(cell).first.bounding_box()["width"] > 150, cell


def test_the_page_can_sort_filter_and_compare(page, tmp_path):
    def names():
        return page.locator("#leaderboard tbody tr:visible td:first-child").all_inner_texts()

    assert names() == ["encoder=roberta", "encoder=bert", "lead1 (baseline)"]
    for expected in (["encoder=roberta", "lead1 (baseline)", "encoder=bert"],) * 2:
        page.get_by_role("button", name="ROUGE-1", exact=True).first.click()
        down = page.locator("#leaderboard th[aria-sort=descending]").count() == 1
        assert names() == (expected if down else expected[::-1])
    assert page.locator("#leaderboard th[aria-sort=ascending]").count() == 1
    page.fill("#filter", "roberta")
    assert names() == ["encoder=roberta"]

    page.select_option("#a", label="encoder=bert")
    page.select_option("#b", label="encoder=roberta")
    assert "A minus B on 3 examples" in page.inner_text("#difference")
    assert (
        page.locator("#difference tbody td.text").all_inner_texts() == ["too few examples to tell (fewer than 10)"] * 4
    )
    assert page.inner_text("#difference .note").endswith("not all likelihoods of encoder=roberta are finite.")
    gaps = [float(text) for text in page.locator("#samples tbody tr td:last-child").all_inner_texts()]
    assert gaps == [48.0, 9.0, -70.0]
    page.select_option("#b", label="lead1 (baseline)")
    assert page.locator("#difference tbody tr").count() == 4
    assert page.locator("#difference thead th").all_inner_texts() == [
        "score",
        "A minus B",
        "95 % interval",
        "corrected p",
        "verdict",
    ]
    assert "first seed" in page.inner_text("body")
    page.select_option("#b", label="encoder=roberta")
    page.select_option("#order", "behind")
    gaps = [float(text) for text in page.locator("#samples tbody tr td:last-child").all_inner_texts()]
    assert gaps == [-70.0, 9.0, 48.0]
    assert page.locator("#samples mark.pair").count() > 0
    assert page.locator("#heat .heatmaplayer").count() == 1
    low, high = page.evaluate("(({zmin, zmax}) => [zmin, zmax])(document.getElementById('heat').data[0])")
    assert (low, high) == (pytest.approx(85 / 3), pytest.approx(31.0))
    assert "given another document" in page.inner_text("#heat")
    lines = page.locator("#curves .scatterlayer .trace path.js-line").all()
    assert len({line.evaluate("e => e.style.stroke") for line in lines}) == 2 < len(lines) == 4  # d is as a and b
    assert page.locator("#costs .scatterlayer .trace").count() == 3  # two rows, and both given another document
    assert page.locator("#costs-key li").all_inner_texts() == ["encoder=roberta", "encoder=bert"]
    assert "failed" in page.inner_text("#others")

    assert page.title() != "owned"
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert page.said == []
    picture = tmp_path / "page.png"
    page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 20_000
    page.set_viewport_size({"width": 400, "height": 800})
    page.wait_for_timeout(1500)  # plots are drawn a moment later
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_tables_can_be_downloaded_and_samples_filtered_by_error(page):
    for name, begins in (("scores.csv", "configuration,seeds,ranked by,ROUGE-1"), ("scores.tex", "% ")):
        with page.expect_download() as download:
            page.click(f"text={name}")
        assert download.value.suggested_filename == name
        assert download.value.path().read_text(encoding="utf-8").startswith(begins)
    assert page.locator("#samples .error").count() > 0
    page.select_option("#only", "repeats")
    assert page.locator("#samples tbody tr").count() == 3
    page.select_option("#only", "empty")
    assert page.inner_text("#samples tbody") == "No sample of A has this error."
    page.select_option("#only", "")
    page.select_option("#order", "worst")
    assert page.locator("#samples tbody tr").count() == 3
    assert page.said == []


def test_plots_follow_light_dark_and_print(page):
    def seen(selector, name):
        return page.eval_on_selector(selector, f"e => getComputedStyle(e).{name}")

    tick = "#costs .xtick text"
    page.emulate_media(color_scheme="dark")
    assert (seen("body", "backgroundColor"), seen(tick, "fill")) == ("rgb(21, 24, 28)", "rgb(230, 233, 237)")
    page.emulate_media(color_scheme="light")
    assert (seen("body", "backgroundColor"), seen(tick, "fill")) == ("rgb(255, 255, 255)", "rgb(27, 31, 36)")
    page.emulate_media(media="print", color_scheme="dark")
    assert (seen("body", "backgroundColor"), seen(tick, "fill")) == ("rgb(255, 255, 255)", "rgb(27, 31, 36)")
    assert not page.is_visible("#filter")
    assert not page.is_visible(".downloads")
    assert page.locator("details.origin[open]").count() == 0
    page.pdf()  # has the events of a real print
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.origin[open]").count() == 2
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details.origin[open]").count() == 0
    assert page.said == []


def test_on_a_narrow_screen_samples_are_stacked_and_names_stay_in_view(page):
    page.set_viewport_size({"width": 420, "height": 900})
    assert not page.is_visible("#samples thead")
    first, second = (page.locator("#samples tbody tr").first.locator("td").nth(i).bounding_box() for i in (1, 2))
    assert second["y"] >= first["y"] + first["height"]
    page.evaluate("document.querySelector('#leaderboard').parentElement.scrollLeft = 300")
    assert page.locator("#leaderboard tbody td").first.bounding_box()["x"] >= 0
    page.wait_for_timeout(1500)  # plots are drawn a moment later
    assert page.evaluate("document.documentElement.scrollWidth") <= 420


def test_a_page_of_one_run_has_no_plot_of_pairs_and_no_curve_of_two_points(opened, write_run):
    folder = write_run("a")
    (folder / "metrics.csv").write_text("step,train/loss\n1,3.0\n2,2.0\n")
    page = opened()
    assert page.locator("#heat, #curves").count() == 0
    assert page.locator("#costs .scatterlayer .trace").count() == 2
    assert page.said == []


@pytest.fixture
def wide(opened, write_run):
    """A page whose leaderboard has every column, for four baselines."""
    for number, encoder in enumerate(("bert", "roberta")):
        for seed in (1, 2):
            over = {"rouge1": 20.0, "rouge1_difference": -10.25, "rouge1_difference_ci": [-11.0, -9.0]}
            scores = {"test/rouge1": 31.0 + seed, "validation/rouge1": 30.0, "validation/rouge1_ci": [28.0, 32.0]}
            scores |= {f"test/{kind}": 30.0 + seed for kind in ("rouge2", "rougeL", "rougeLsum", "nll")}
            monitored = {"monitor": "validation/loss", "mode": "min", "best": 2.0 + number}
            baselines = dict.fromkeys(("lead1", "lead2", "lead3", "copula"), over)
            more = {"metrics": scores, "validation": monitored, "test_looks": 2, "baselines": baselines}
            nll = (30.0, 31.0, 32.0)
            write_run(f"{encoder}{seed}", seed=seed, encoder=encoder, scores=nll, nll=nll, result=more)
    return opened()


def test_a_leaderboard_of_four_baselines_is_not_cut_off(wide):
    wide.set_viewport_size({"width": 1300, "height": 900})
    assert wide.locator("#leaderboard thead th").count() == 16
    widths = "(({scrollWidth, clientWidth}) => [scrollWidth, clientWidth])(leaderboard.parentElement)"
    whole, visible = wide.evaluate(widths)
    assert whole <= visible
    wide.set_viewport_size({"width": 420, "height": 900})
    whole, visible = wide.evaluate(widths)
    assert whole > visible
    # A shadow at the edge shows that there is more, and the names stay in view.
    assert "scroll" in wide.eval_on_selector(".scroll", "e => getComputedStyle(e).backgroundAttachment")
    wide.evaluate("leaderboard.parentElement.scrollLeft = 400")
    assert wide.locator("#leaderboard tbody td").first.bounding_box()["x"] >= 0
    assert wide.said == []
