"""What only a browser can tell: charts draw under the real content policy, themes switch, keys work, nothing jumps."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from api.dashboard.assets import plotly_js_path
from service.report_html import render_html
from tests.api.dashboard import example_figures, example_jobs, example_training, examples

pytestmark = pytest.mark.browser

PATHS = tuple(examples.example_pages())
JOB = f"/jobs/{example_jobs.JOB_ID}"
OpenPage = Callable[..., Page]


def background(page: Page) -> tuple[int, ...]:
    text = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return tuple(int(part) for part in text.removeprefix("rgb(").removesuffix(")").split(","))


def grid_colour(page: Page) -> str:
    return page.locator(".plot .gridlayer path").first.evaluate("path => getComputedStyle(path).stroke")


@pytest.mark.parametrize("path", PATHS)
def test_page_draws_its_charts_and_fits_wide_and_narrow_screens(path: str, open_page: OpenPage) -> None:
    figures = getattr(examples.example_pages()[path], "figures", ())
    page = open_page(path)

    expect(page.locator(".js-plotly-plot")).to_have_count(sum(not figure.is_empty for figure in figures))
    for width in (1360, 420):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_chart_table_opens_and_has_the_numbers_of_the_curve(open_page: OpenPage) -> None:
    page = open_page(JOB)
    figure = page.locator("#figure-coverage")
    figure.locator("summary").click()

    drawn = page.evaluate(
        "document.querySelector('#figure-coverage .plot').data.filter(t => t.mode === 'lines+markers')"
    )
    cells = figure.locator("tbody tr td:nth-child(4)").all_text_contents()

    assert figure.locator("table").is_visible()
    assert cells == [f"{value:.3f}" for trace in drawn for value in trace["y"]]


def test_dark_follows_the_system_and_the_button_overrules_it(open_page: OpenPage) -> None:
    page = open_page(JOB, dark=True)
    page.wait_for_selector(".js-plotly-plot .gridlayer path", state="attached")
    dark, dark_grid = background(page), grid_colour(page)

    page.get_by_role("button", name="Light / dark").click()
    page.wait_for_function(
        "grid => getComputedStyle(document.querySelector('.gridlayer path')).stroke !== grid", arg=dark_grid
    )

    assert max(dark) < 64
    assert min(background(page)) > 192

    page.reload()

    assert min(background(page)) > 192, "the choice is kept"


def test_sample_browser_moves_by_j_and_k_and_reads_by_enter(open_page: OpenPage) -> None:
    page = open_page(f"{JOB}/samples")
    reading, selected = page.locator("#reading"), page.locator("tr[aria-selected='true']")
    expect(selected).to_have_attribute("data-sample", "s02")
    expect(reading).to_contain_text("line 1: 3 * 6 is 18, written 16")

    page.keyboard.press("j")

    expect(selected).to_have_attribute("data-sample", "s03")
    expect(reading).to_contain_text("41 is not 23")
    expect(page).to_have_url(re.compile("sample=s03"))

    page.keyboard.press("k")
    page.keyboard.press("k")

    expect(selected).to_have_attribute("data-sample", "s01")
    expect(reading).to_contain_text("3 of 3 calculations hold")

    page.keyboard.press("Enter")
    expect(reading).to_be_focused()

    page.keyboard.press("Escape")
    expect(page.locator(".list .scroll")).to_be_focused()


def test_rows_of_a_training_set_are_read_by_keys(open_page: OpenPage) -> None:
    page = open_page(f"/training/selections/{example_training.SELECTION_ID}")
    reading, selected = page.locator("#reading"), page.locator("tr[aria-selected='true']")
    expect(reading).to_contain_text("7*5=35. 39-35=4. #### 4")

    page.keyboard.press("j")

    expect(selected).to_have_attribute("data-sample", "1")
    expect(reading).to_contain_text("12+30=42. #### 42")
    expect(page).to_have_url(re.compile("row=1"))


def test_training_set_appears_once_it_is_made_without_a_reload(open_page: OpenPage) -> None:
    page = open_page("/training/selections/unmade")
    made = f"/training/selections/{example_training.SELECTION_ID}"
    expect(page.locator("#figure-filters")).to_have_count(0)

    page.route(
        "**/training/selections/unmade?**",
        lambda route: route.fulfill(response=route.fetch(url=site_of(page) + made + "?fragment=live")),
    )

    expect(page.locator("#figure-filters .js-plotly-plot")).to_have_count(1)
    expect(page.locator("#reading")).to_contain_text("7*5=35")
    assert page.evaluate("document.getElementById('main').dataset.pollMs") == "0", "a set that is made asks no more"


def site_of(page: Page) -> str:
    return "/".join(page.url.split("/")[:3])


def test_sample_browser_keys_stop_at_the_ends_of_the_list(open_page: OpenPage) -> None:
    page = open_page(f"{JOB}/samples?sample=s00")
    selected = page.locator("tr[aria-selected='true']")

    page.keyboard.press("k")
    expect(selected).to_have_attribute("data-sample", "s00")

    for _ in range(30):
        page.keyboard.press("j")
    expect(selected).to_have_attribute("data-sample", "s24")
    expect(selected).to_be_in_viewport()


def test_sample_opens_by_click(open_page: OpenPage) -> None:
    page = open_page(f"{JOB}/samples")

    page.locator("tr[data-sample='s05']").click()

    expect(page.locator("#reading")).to_contain_text("cut at 128 tokens")


def test_table_sorts_by_its_head(open_page: OpenPage) -> None:
    page = open_page("/usage")
    column = page.locator("table.sortable tbody tr td:nth-child(4)")
    assert column.all_text_contents() == ["1.31e12", "8.07e11", "1.89e11"]
    head = page.get_by_role("button", name="useful FLOPs")

    head.click()
    assert column.all_text_contents() == ["1.31e12", "8.07e11", "1.89e11"]

    head.click()
    assert column.all_text_contents() == ["1.89e11", "8.07e11", "1.31e12"]
    expect(page.locator("th[aria-sort='ascending']")).to_have_text("useful FLOPs")


def test_live_page_changes_numbers_in_place(open_page: OpenPage, site: str) -> None:
    page = open_page(JOB)
    page.wait_for_selector(".js-plotly-plot")
    page.evaluate("window.scrollTo(0, 500); window.isSamePage = true")
    page.locator("#figure-coverage summary").click()

    def newer(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=response.text().replace(">7,484<", ">7,999<"))

    page.route("**/jobs/*?fragment=live", newer)

    expect(page.locator("[data-live='fact-samples']")).to_have_text("7,999")
    assert page.evaluate("window.scrollY") == 500
    assert page.evaluate("window.isSamePage")
    expect(page.locator("#figure-coverage table")).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(4)


def test_live_page_stops_asking_once_the_service_says_nothing_will_change(open_page: OpenPage) -> None:
    page = open_page(JOB)

    def ended(route: Route) -> None:
        response = route.fetch()
        body = response.text().replace(' data-poll-ms="2000"', "").replace(">7,484<", ">7,500<")
        route.fulfill(response=response, body=body)

    page.route("**/jobs/*?fragment=live", ended)
    expect(page.locator("[data-live='fact-samples']")).to_have_text("7,500")
    expect(page.locator("#main")).to_have_attribute("data-poll-ms", "0")


def test_lost_service_is_said_without_moving_the_page(open_page: OpenPage) -> None:
    page = open_page(JOB)
    top = page.locator("main h1").bounding_box()

    page.route("**/jobs/*?fragment=live", lambda route: route.fulfill(status=204))

    expect(page.locator("#connection")).to_contain_text("No answer from the service")
    assert page.locator("main h1").bounding_box() == top


def test_number_being_typed_is_left_alone_by_updates(open_page: OpenPage) -> None:
    page = open_page("/workers")
    field = page.get_by_label("Engines of gsm-mini-small")
    field.fill("3")

    with page.expect_response("**/workers?fragment=live"):
        pass
    with page.expect_response("**/workers?fragment=live"):
        pass

    expect(field).to_have_value("3")


def test_report_opens_from_a_file_and_draws_offline(open_page: OpenPage, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    figures = example_figures.quality_figures()
    report.write_text(
        render_html(example_figures.comparison(), figures, plotly_js=plotly_js_path().read_text(encoding="utf-8")),
        encoding="utf-8",
    )

    page = open_page(report.as_uri())

    expect(page.locator(".js-plotly-plot")).to_have_count(len(figures))
    expect(page.locator("table.comparison")).to_contain_text("not significant")
