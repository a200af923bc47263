"""lib.download.urls and lib.download.manifest: which addresses may be asked for a file, and how they are made."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from workflow_scripts.lib.download import manifest, urls


@pytest.mark.parametrize(
    ("before", "url", "problem"),
    [
        ("https://a.org/x", "http://a.org/x", "from https to http"),
        ("https://a.org/x", "http://127.0.0.1/x", "from https to http"),
        ("https://a.org/x", "https://localhost/x", "to this machine"),
        ("https://a.org/x", "https://u:p@b.org/x", "user name"),
        ("https://a.org/x", "file:///etc/passwd", "must begin with https"),
        ("https://a.org/x", "https://b.org:port/x", "cannot be understood"),
        ("https://a.org/x", "https://b.org/x y", "blanks"),
    ],
)
def test_redirects_never_leave_the_safe_ground(before, url, problem):
    assert urls.check_url("https://b.org/y", urls.check_url(before)).hostname == "b.org"
    with pytest.raises(urls.Refused, match=problem):
        urls.check_url(url, urls.check_url(before))


def test_loopback_is_this_machine_and_nothing_else():
    assert all(map(urls.is_loopback, ["127.0.0.1", "127.8.9.10", "::1", "localhost"]))
    others = ["128.0.0.1", "127.0.0.1.example.org", "localhost.example.org", "0.0.0.0", "::2", "2130706433", ""]
    assert not any(map(urls.is_loopback, others))


def test_retry_after_is_a_number_or_a_date():
    assert urls.retry_after("12") == 12
    assert urls.retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert urls.retry_after(time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 3600))) > 3000
    assert urls.retry_after("soon") == urls.retry_after(None) == 0


def test_the_default_address_is_sound():
    template = yaml.safe_load((Path(__file__).parents[2] / "config.yaml").read_text())["fetch_images"]["url"]
    assert manifest.template_problem(template) is None
    entry = manifest.Entry("x", "1", 0, "ENSG00000003989", "9277", "1732", "B2", "13", "_cr580609aeb2c05")
    assert entry.address(template, "green").endswith("/9277/1732_B2_13_cr580609aeb2c05_green.jpg")
