"""The page in a real browser: Debian's Chromium before a service that runs in a process of its own."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.tasks import Classification
from vitrail.weights.save import save_description, save_weights

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'vitrail[dev]'")
CHROMIUM = os.environ.get("VITRAIL_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: put it on PATH, or its path in VITRAIL_CHROMIUM"
)

CLASSES = ("ash", "birch", "cedar", "elm")
SIDE, PATCH, HEADS, LAYERS = 32, 8, 2, 3  # 4 x 4 patches
TOKEN = "open-sesame"
FLAGS = (
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Service(NamedTuple):
    """A running service: where it is, the model that it has, and the folder of its examples."""

    address: str
    task: Classification
    examples: Path


def a_task():
    """A vision transformer with a class token, whose random weights are large enough that it looks here and there."""
    torch.manual_seed(0)
    changes = {"width": 24, "depth": LAYERS, "heads": HEADS, "mlp": 48, "patch_size": PATCH, "pool": "class"}
    backbone = models.create("vit-nano", channels=3, image_size=(SIDE, SIDE), **changes)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    preprocess = Preprocess((SIDE, SIDE), mean=(0.5,) * 3, std=(0.5,) * 3)
    return Classification("vit-nano", backbone, CLASSES, preprocess).eval()


def a_photo(path, seed=0, side=SIDE):
    """Noise that is smooth enough to look at."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    task = a_task()
    save_description(task, folder / "run")
    save_weights(task.state_dict(), folder / "run")
    examples = folder / "examples"
    examples.mkdir()
    for seed in range(2):
        a_photo(examples / f"example-{seed}.png", seed=10 + seed)
    flags = [
        "--port",
        "0",
        "--token",
        TOKEN,
        "--examples",
        str(examples),
        "--upload-megabytes",
        "1",
        "--device",
        "cpu",
        "--precision",
        "float32",
    ]
    command = [sys.executable, "-m", "vitrail", "serve", str(folder / "run"), *flags]
    said = folder / "said.txt"
    with said.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield Service(address_in(said, process), task, examples)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def address_in(said, process):
    """The address that the service prints once it answers."""
    for _ in range(600):
        found = re.search(r"http://127\.0\.0\.1:\d+", said.read_text(errors="replace"))
        if found:
            return found[0]
        assert process.poll() is None, said.read_text(errors="replace")
        time.sleep(0.1)
    raise AssertionError(f"no address: {said.read_text(errors='replace')}")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, service, request, tmp_path):
    """Opens the page in a window of its own; in the end no request has left the host, and no script has failed."""
    contexts, foreign, faults = [], [], []

    def open_page(token=TOKEN, before=lambda page: None, **window):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}} | window)
        contexts.append(context)
        context.set_default_timeout(15_000)
        if token:
            context.add_init_script(f"sessionStorage.setItem('vitrail-token', '{token}')")
        page = context.new_page()
        page.on("request", lambda sent: sent.url.startswith((service.address, "blob:")) or foreign.append(sent.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: is_fault(line) and faults.append(line.text))
        before(page)
        page.goto(service.address)
        return page

    yield open_page
    artefacts = Path(os.environ.get("VITRAIL_ARTEFACTS") or tmp_path)
    artefacts.mkdir(parents=True, exist_ok=True)
    for number, context in enumerate(contexts):
        if context.pages:
            context.pages[0].screenshot(path=artefacts / f"{request.node.name}-{number}.png", full_page=True)
        context.close()
    assert foreign == []
    assert faults == []


def is_fault(line):
    """Whether a line of the console is one; that an answer was a refusal is not, and each test looks at it itself."""
    return line.type in ("error", "warning") and not line.text.startswith("Failed to load resource")


def give(page, *paths):
    page.get_by_label("Choose images").set_input_files([str(path) for path in paths])


def until(page, condition, seconds=15):
    """Wait; the page's own policy forbids playwright's wait_for_function, which would evaluate a text in it."""
    for _ in range(seconds * 50):
        if condition():
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"it has not happened within {seconds} s")


def text(page, selector):
    return page.locator(selector).text_content()


def rest(page):
    """Until nothing is being computed."""
    page.locator("#picture").wait_for()
    until(page, lambda: text(page, "#note") == "")


def an_image(page, tmp_path, seed=0):
    path = a_photo(tmp_path / f"photo{seed}.png", seed)
    give(page, path)
    readout(page)
    rest(page)
    return path


def pixels(page):
    """What the picture shows, with all that lies over it."""
    return page.locator("#picture").evaluate("canvas => canvas.toDataURL()")


def readout(page):
    """Who looks, where most, and with what share, as the page tells a screen reader."""
    until(page, lambda: text(page, "#readout"))
    told = text(page, "#readout")
    found = re.fullmatch(r"(.+) looks most at row (\d+), column (\d+): ([\d.]+) % of its attention\.", told)
    assert found, told
    return found[1], int(found[2]), int(found[3]), float(found[4])


def point_at(page, row, column):
    """Move the mouse over a patch, counted from 1."""
    box = page.locator("#picture").bounding_box()
    side = SIDE // PATCH
    page.mouse.move(box["x"] + (column - 0.5) / side * box["width"], box["y"] + (row - 0.5) / side * box["height"])


def slide(page, name, value):
    page.get_by_role("slider", name=name).fill(str(value))


@torch.no_grad()
def attention_of(task, path, layer):
    """``(heads, 1 + 16, 1 + 16)`` of a layer, counted from 1: the class token, then the patches."""
    image, _ = task.preprocess.view(np.asarray(Image.open(path)))
    x = task.preprocess.normalize(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
    tokens, _ = task.backbone.embed(x)
    for block in task.backbone.blocks[: layer - 1]:
        tokens = block(tokens)
    block = task.backbone.blocks[layer - 1]
    return block.attention.probabilities(block.norm1(tokens))[0]


def check_look(page, task, path, who, query, layer=LAYERS, head=None):
    """The page says of ``query`` (0 is the class token) what the model's attention says."""
    attention = attention_of(task, path, layer)
    row = (attention.mean(dim=0) if head is None else attention[head - 1])[query, 1:]
    told, at_row, at_column, _ = readout(page)
    assert told == who
    assert row[4 * (at_row - 1) + at_column - 1] >= 0.99 * row.max()


def test_an_image_is_shown_with_its_labels(visit, service, tmp_path):
    page = visit()
    path = an_image(page, tmp_path)
    expected = service.task.predict(path)
    rows = page.locator("#predictions li")
    assert rows.locator(".label").all_inner_texts() == [scored.label for scored in expected]
    assert rows.locator(".score").all_inner_texts() == [f"{100 * scored.score:.1f} %" for scored in expected]
    widths = rows.locator(".bar").evaluate_all("bars => bars.map(bar => parseFloat(bar.style.width))")
    assert widths == pytest.approx([100 * scored.score for scored in expected], abs=1e-3)
    assert re.fullmatch(r"\d+\.\d ms in the service", page.locator("#latency").inner_text())
    assert page.title().endswith("· Vitrail")
    assert "vit-nano" in page.locator("#model-line").inner_text()


def test_the_picture_is_what_the_model_sees(visit, service, tmp_path):
    page = visit()
    path = an_image(page, tmp_path)
    page.get_by_text("picture", exact=True).click()
    rest(page)
    drawn = page.locator("#picture").evaluate(
        "c => { const small = new OffscreenCanvas(32, 32).getContext('2d'); small.drawImage(c, 0, 0, 32, 32);"
        " return Array.from(small.getImageData(0, 0, 32, 32).data) }"
    )
    seen = service.task.preprocess.view(np.asarray(Image.open(path)))[0]
    assert np.abs(np.reshape(drawn, (SIDE, SIDE, 4))[..., :3].astype(int) - seen).mean() < 8


def test_a_patch_under_the_mouse_shows_where_it_looks(visit, service, tmp_path):
    page = visit()
    path = an_image(page, tmp_path)
    whole = pixels(page)
    check_look(page, service.task, path, "The whole image", 0)
    point_at(page, 1, 2)
    one = pixels(page)
    check_look(page, service.task, path, "Row 1, column 2", 2)
    point_at(page, 4, 3)
    check_look(page, service.task, path, "Row 4, column 3", 15)
    assert len({whole, one, pixels(page)}) == 3
    page.mouse.move(5, 5)
    assert pixels(page) == whole


def test_a_click_keeps_a_patch(visit, service, tmp_path):
    page = visit()
    path = an_image(page, tmp_path)
    whole = pixels(page)
    point_at(page, 2, 2)
    page.mouse.down()
    page.mouse.up()
    page.mouse.move(5, 5)
    check_look(page, service.task, path, "Row 2, column 2", 6)
    page.get_by_role("button", name="Back to the whole image").click()
    assert pixels(page) == whole


def test_layer_and_head_change_what_is_shown(visit, service, tmp_path):
    page = visit()
    asked = []
    page.on("request", lambda sent: "/attention" in sent.url and asked.append(sent.url))
    path = an_image(page, tmp_path)
    shown = {pixels(page)}
    for head in (1, 2):
        slide(page, "Head", head)
        check_look(page, service.task, path, "The whole image", 0, head=head)
        shown.add(pixels(page))
    for layer in (1, 2):
        slide(page, "Layer", layer)
        until(page, lambda: pixels(page) not in shown)
        check_look(page, service.task, path, "The whole image", 0, layer=layer, head=2)
        shown.add(pixels(page))
    slide(page, "Layer", LAYERS)
    slide(page, "Head", 0)
    rest(page)
    assert pixels(page) in shown
    assert len(shown) == 5
    assert len(asked) == LAYERS  # each layer once, and none for a head


def test_another_method_lays_another_map_over_the_picture(visit, tmp_path):
    page = visit()
    asked = []
    page.on("request", lambda sent: "/explain" in sent.url and asked.append(sent.url))
    an_image(page, tmp_path)
    shown = [pixels(page)]
    for name in ("rollout", "attention", "rollout"):
        page.get_by_text(name, exact=True).click()
        until(page, lambda: pixels(page) != shown[-1])
        rest(page)
        shown.append(pixels(page))
    assert len(set(shown)) == 3
    assert shown[1] == shown[3]
    assert len(asked) == 2  # what was computed once is kept
    slide(page, "Strength", 20)
    assert pixels(page) != shown[3]


def test_every_method_draws(visit, tmp_path):
    page = visit()
    an_image(page, tmp_path)
    shown = {pixels(page)}
    names = page.locator("#views span").all_inner_texts()
    assert names[0] == "patches"
    assert len(names) > 3
    for name in names[1:]:
        page.get_by_text(name, exact=True).click()
        rest(page)
        assert text(page, "#problem") == ""
        shown.add(pixels(page))
    assert len(shown) == len(names)


def test_another_class_is_explained(visit, service, tmp_path):
    page = visit()
    asked = []
    page.on("request", lambda sent: "/explain" in sent.url and asked.append(sent.url))
    path = an_image(page, tmp_path)
    best, second, third = (scored.label for scored in service.task.predict(path, top=3))
    page.get_by_text("gradcam", exact=True).click()
    rest(page)
    assert page.get_by_role("button", pressed=True).all_inner_texts()[0].startswith(best)
    first = pixels(page)
    page.get_by_role("button", name=second).click()
    until(page, lambda: pixels(page) != first)
    rest(page)
    assert asked[-1].endswith(f"class={second}")
    picker = page.get_by_role("combobox", name="For the class")
    picker.fill(third[:2].upper())
    picker.press("Enter")
    until(page, lambda: picker.input_value() == third)
    rest(page)
    assert asked[-1].endswith(f"class={third}")
    picker.fill("oak")
    picker.press("Enter")
    assert page.get_by_text("The model has no class “oak”.").is_visible()


def test_a_broken_image_is_one_sentence_and_the_next_one_works(visit, tmp_path):
    page = visit()
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 no image follows")
    give(page, broken)
    until(page, lambda: text(page, "#problem"))
    told = text(page, "#problem")
    assert "broken.jpg" in told
    assert told.count(".") == 2  # that of the name, and that of the sentence
    assert page.locator("#picture").is_hidden()
    an_image(page, tmp_path)
    assert text(page, "#problem") == ""


def test_a_file_that_is_too_large_is_not_sent(visit, tmp_path):
    page = visit()
    large = tmp_path / "large.png"
    large.write_bytes(bytes(1_200_000))
    until(page, lambda: page.title() != "Vitrail")
    asked = []
    page.on("request", lambda sent: sent.method == "POST" and asked.append(sent.url))
    give(page, large)
    page.get_by_text("large.png has 1.2 MB; the service takes up to 1 MB.").wait_for()
    assert asked == []


def test_several_images_are_a_strip(visit, service, tmp_path):
    page = visit()
    paths = [a_photo(tmp_path / f"photo{seed}.png", seed) for seed in range(3)]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    give(page, *paths, broken)
    labels = [service.task.predict(path)[0].label for path in paths]
    strip = page.get_by_role("list", name="Your images")
    for path, label in zip([*paths, broken], [*labels, "unreadable"], strict=True):
        strip.get_by_role("button", name=f"{path.name}: {label}").wait_for()
    rest(page)
    first = pixels(page)
    strip.get_by_role("button", name="photo2.png").click()
    until(page, lambda: pixels(page) != first)
    assert strip.locator("[aria-current=true]").get_attribute("title") == "photo2.png"
    assert page.locator("#predictions .label").first.inner_text() == labels[2]


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_an_image_is_dropped_or_pasted(visit, service, tmp_path, way):
    page = visit()
    until(page, lambda: page.title() != "Vitrail")
    path = a_photo(tmp_path / "photo.png")
    carried = page.evaluate_handle(
        "data => { const carried = new DataTransfer(); const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));"
        " carried.items.add(new File([bytes], 'photo.png', { type: 'image/png' })); return carried }",
        base64.b64encode(path.read_bytes()).decode(),
    )
    if way == "drop":
        page.dispatch_event("#welcome", "drop", {"dataTransfer": carried})
    else:
        page.evaluate("data => dispatchEvent(new ClipboardEvent('paste', { clipboardData: data }))", carried)
    readout(page)
    assert page.locator("#predictions .label").first.inner_text() == service.task.predict(path)[0].label


def test_what_is_no_file_is_refused_when_it_is_dropped(visit):
    page = visit()
    until(page, lambda: page.title() != "Vitrail")
    carried = page.evaluate_handle("() => { const d = new DataTransfer(); d.setData('text/plain', 'x'); return d }")
    page.dispatch_event("#welcome", "drop", {"dataTransfer": carried})
    assert "no file" in page.get_by_role("alert").filter(has_text="dropped").inner_text()


def tab_to(page, selector, most=40):
    """Press the tab key until an element has the focus, which can be seen."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            target = page.evaluate_handle(
                "() => document.activeElement.matches('.unseen') ? document.activeElement.nextElementSibling"
                " : document.activeElement"
            )
            assert target.evaluate("e => getComputedStyle(e).outlineStyle") == "solid", selector
            return
    raise AssertionError(f"the tab key does not lead to {selector}")


def test_all_works_by_keyboard_alone(visit, service):
    page = visit()
    choosers = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    page.locator("#examples button").nth(1).wait_for()
    tab_to(page, "#file")
    page.keyboard.press("Space")
    until(page, lambda: choosers)
    tab_to(page, "#examples li:nth-child(2) button")
    page.keyboard.press("Enter")
    readout(page)
    rest(page)
    path = service.examples / "example-1.png"
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    tab_to(page, "#picture")
    page.keyboard.press("ArrowUp")  # from the middle, which is row 3 and column 3
    check_look(page, service.task, path, "Row 2, column 3", 7)
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")  # stays
    page.keyboard.press("ArrowDown")
    check_look(page, service.task, path, "Row 3, column 4", 12)
    page.keyboard.press("Escape")
    check_look(page, service.task, path, "The whole image", 0)
    tab_to(page, "#views input")
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("radio", checked=True).get_attribute("value") != "patches"
    page.keyboard.press("ArrowLeft")
    tab_to(page, "#layer")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#layer-value").inner_text() == "2 of 3"
    tab_to(page, "#head")
    page.keyboard.press("ArrowRight")
    assert page.locator("#head-value").inner_text() == "1 of 2"
    tab_to(page, "summary")
    page.keyboard.press("Enter")
    assert page.get_by_text("Its 4 classes: ash, birch, cedar, elm.").is_visible()


def test_the_page_is_told_to_a_screen_reader(visit, tmp_path):
    page = visit()
    an_image(page, tmp_path)
    picture = page.locator("#picture")
    assert picture.get_attribute("role") == "application"
    assert "Arrow keys" in picture.get_attribute("aria-label")
    assert page.locator("#readout").get_attribute("aria-live") == "polite"
    nameless = page.evaluate(
        "() => [...document.querySelectorAll('button, input, canvas#picture')].filter(e => e.checkVisibility()"
        " && !(e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim())).map(e => e.outerHTML)"
    )
    assert nameless == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("width", [360, 320])
def test_a_phone_shows_one_column_with_room_for_fingers(visit, service, tmp_path, width):
    page = visit(viewport={"width": width, "height": 780}, has_touch=True, is_mobile=True, device_scale_factor=2)
    path = an_image(page, tmp_path)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator("#picture").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3)
    check_look(page, service.task, path, "Row 2, column 2", 6)
    page.get_by_text("About this model").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    small = page.evaluate(
        "() => [...document.querySelectorAll('button, a, summary, label.button, #views span, input:not(.unseen)')]"
        ".filter(e => e.checkVisibility() && !e.matches('.skip') && e.getBoundingClientRect().height < 44)"
        ".map(e => e.outerHTML)"
    )
    assert small == []


def test_twice_as_large_it_does_not_scroll_sideways(visit, tmp_path):
    page = visit(viewport={"width": 640, "height": 400}, device_scale_factor=2)  # 1280 x 800 at 200 %
    an_image(page, tmp_path)
    assert page.evaluate("document.documentElement.scrollWidth") <= 640


TEXTS = [
    *(
        "h1",
        "h2",
        "#model-line",
        "#predictions .label",
        "#predictions .score",
        "#latency",
        "#what",
        "#readout",
        "output",
    ),
    *("label.main", "#views :checked + span", "#views :not(:checked) + span", "dt", "dd", "#problem", "footer a"),
]
HOVERED = ["label.main", "#views :checked + span", "#views :not(:checked) + span", "#predictions button"]
CONTRAST = """
selector => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const element = [...document.querySelectorAll(selector)].find((each) => each.checkVisibility());
  let ground = element;
  while (ground && (parse(getComputedStyle(ground).backgroundColor)[3] ?? 1) === 0) ground = ground.parentElement;
  return [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor].map(parse);
}
"""


def luminance(colour):
    """Relative luminance of an sRGB colour (WCAG 2.2)."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in colour[:3])
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(visit, tmp_path, scheme):
    page = visit(color_scheme=scheme)
    an_image(page, tmp_path)
    page.get_by_text("About this model").click()
    page.get_by_text("gradcam", exact=True).click()  # which makes the labels buttons
    rest(page)
    page.evaluate("document.getElementById('problem').textContent = 'A problem.'")
    page.evaluate("document.getElementById('readout').hidden = false")
    grounds = set()
    for selector, hovered in [(text, False) for text in TEXTS] + [(text, True) for text in HOVERED]:
        if hovered:
            page.locator(selector).first.hover()
        text, ground = page.evaluate(CONTRAST, selector)
        lighter, darker = sorted((luminance(text), luminance(ground)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, selector
        grounds.add(round(luminance(ground), 4))
    assert (min(grounds) < 0.02) == (scheme == "dark")
    assert (max(grounds) > 0.9) == (scheme == "light")


def test_nothing_moves_where_a_person_wants_it_still(visit, tmp_path):
    page = visit(reduced_motion="reduce")
    an_image(page, tmp_path)
    moving = page.evaluate(
        "[...document.querySelectorAll('*')].filter(e => { const s = getComputedStyle(e);"
        " return parseFloat(s.transitionDuration) > 0 || s.animationName !== 'none' }).length"
    )
    assert moving == 0


def test_the_token_is_asked_for_and_kept_with_the_tab(visit, tmp_path):
    page = visit(token=None)
    field = page.get_by_label("This service wants a token")
    field.fill("guess")
    field.press("Enter")
    page.get_by_text("That is not the token.").wait_for()
    field.fill(TOKEN)
    page.get_by_role("button", name="Use it").click()
    an_image(page, tmp_path)
    page.reload()
    until(page, lambda: page.title() != "Vitrail")
    assert field.is_hidden()


def test_a_busy_service_is_asked_again_when_it_says(visit, tmp_path):
    page = visit()
    times = []

    def busy_once(route):
        times.append(time.monotonic())
        if len(times) > 1:
            route.continue_()
        else:
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"error": "too many images wait."})

    page.route("**/predict*", busy_once)
    give(page, a_photo(tmp_path / "photo.png"))
    page.get_by_text("The service is busy; trying again in 1 s.").wait_for()
    readout(page)
    assert len(times) == 2
    assert times[1] - times[0] >= 0.9


def test_a_service_that_has_gone_is_told_and_tried_again(visit, tmp_path):
    page = visit()
    until(page, lambda: page.title() != "Vitrail")
    page.route("**/predict*", lambda route: route.abort())
    give(page, a_photo(tmp_path / "photo.png"))
    page.get_by_text("The service cannot be reached; is it still running?").wait_for()
    page.unroute("**/predict*")
    page.get_by_role("button", name="Try again").click()
    readout(page)
    assert text(page, "#problem") == ""


def test_what_is_wanted_now_ends_what_was_wanted_before(visit, tmp_path):
    page = visit()
    an_image(page, tmp_path)
    held, ended = [], []
    page.on("requestfailed", lambda sent: ended.append(sent.url))
    page.route("**/explain?method=rollout*", lambda route: held.append(route))
    page.get_by_text("rollout", exact=True).click()
    page.get_by_text("Computing rollout …").wait_for()
    until(page, lambda: held)
    page.get_by_text("patches", exact=True).click()
    rest(page)
    until(page, lambda: ended)
    assert len(ended) == 1
    assert "rollout" in ended[0]


def test_a_model_without_explanations_says_so(visit, tmp_path):
    def nothing_to_explain(page):
        def strip(route):
            answer = route.fetch()
            route.fulfill(response=answer, json=answer.json() | {"methods": [], "layers": [], "parameters": None})

        page.route("**/model", strip)

    page = visit(before=nothing_to_explain)
    give(page, a_photo(tmp_path / "photo.png"))
    page.get_by_text("This model has no explanations to show.").wait_for()
    rest(page)
    assert page.locator("#views").is_hidden()
    assert page.locator("#picture").get_attribute("role") == "img"
    assert "parameters" not in page.locator("#card-facts dt").all_text_contents()
