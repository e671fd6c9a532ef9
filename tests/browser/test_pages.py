"""run.html and the page of the calls in a browser without a network; how to get one: tests/browser/chromium.py."""

from collections import Counter
from pathlib import Path

import pysam
import pytest

from genoattn.cli.calls_page import igv_script
from genoattn.cli.main import main
from genoattn.genome.alphabet import decode_bases
from tests.browser.chromium import find_chromium, opened
from tests.cli.test_detect import planted, write_fasta

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.usefixtures("alone"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; tests/browser/chromium.py says how to get one"),
    pytest.mark.skipif(igv_script() is None, reason="no igv-notebook, which brings igv.js"),
]
COUNT = """ready.then(async browser => {
  const held = {}, drawn = {}, [calls] = browser.findTracks("name", "calls"), draw = calls.draw
  calls.draw = function (options) {
    drawn[options.referenceFrame.chr] = options.features.length
    return draw.call(this, options)
  }
  for (const {name, bpLength} of browser.genome.chromosomes.values()) {
    if (name === "all") continue
    for (const track of browser.findTracks(track => track.getFeatures && track.name !== "sample"))
      (held[track.name] ??= {})[name] = (await track.getFeatures(name, 0, bpLength, 1)).length
    await browser.search(`${name}:1-${bpLength}`)
    while (!(name in drawn)) await new Promise(done => setTimeout(done, 20))
  }
  return {held, drawn, bases: await browser.genome.getSequence("two", 0, 50)}
})"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, alone: None) -> Path:
    """Two assemblies and what `detect` made of them."""
    folder = tmp_path_factory.mktemp("calls")
    reference, sample = planted(1)
    write_fasta(folder / "reference.fa", reference)
    write_fasta(folder / "sample.fa", {"<script>oops = 1</script>": sample["b"], "a1": sample["a1"]})
    words = [f"reference={folder}/reference.fa", f"sample={folder}/sample.fa", f"out={folder}/calls.vcf.gz"]
    assert main(["detect", *words, f"hydra.run.dir={folder}/run"]) == 0
    return folder


def by_record(file: Path) -> Counter[str]:
    return Counter(row.partition("\t")[0] for row in file.read_text().splitlines())


def test_the_browser_draws_every_row_of_the_vcf(folder: Path, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    with pysam.VariantFile(str(folder / "calls.vcf.gz")) as rows:
        calls = Counter(row.chrom for row in rows)
    with opened(CHROMIUM, folder / "calls.html") as page:
        found = page.evaluate(COUNT)
        assert found["drawn"] == found["held"]["calls"] == calls and calls.total() > 100
        assert found["held"]["probability"] == by_record(folder / "calls.bedgraph")
        assert found["held"]["blocks"] == by_record(folder / "calls.blocks.bed")
        assert found["bases"] == decode_bases(planted(1)[0]["two"][:50])
        locus = page.evaluate("document.querySelectorAll('[data-locus]')[7].click()")
        assert locus is None and page.requests() == [] and page.evaluate("typeof oops") == "undefined"
        page.screenshot(tmp_path / "calls.png")
    assert (tmp_path / "calls.png").stat().st_size > 20_000


@pytest.mark.parametrize(("width", "height"), [(1200, 900), (390, 800)])
def test_a_run_page_fits_a_screen_and_a_phone(folder: Path, tmp_path: Path, width: int, height: int) -> None:
    assert CHROMIUM is not None
    with opened(CHROMIUM, folder / "run" / "run.html", width, height) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)") and page.requests() == []
        page.screenshot(tmp_path / "run.png")
