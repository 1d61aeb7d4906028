"""`lad predict --format-prompt`: a faulty template is one sentence before a model is loaded."""

from __future__ import annotations

import pytest

from lad_reasoner.inference.predict import read_format_prompt
from lad_reasoner.support.errors import DataError


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (b"{{ content }", "cannot be rendered"),
        (b"{{ content | nofilter }}", "cannot be rendered"),
        (b"{{ content }}{{ ().__class__.__bases__ }}", "cannot be rendered"),
        (b"{{ content }}{{ 1 / 0 }}", "cannot use `div`"),
        (b"{{ content }}{% for i in range(10**9) %}{% endfor %}", "cannot use `for`"),
        (
            b"{{ content }}{% for i in range(9**5) %}{% for j in range(9**5) %}{% endfor %}{% endfor %}",
            "cannot use `for`",
        ),
        (b"{{ content * 10**9 }}", "cannot use `mul`"),
        (b"{{ content }}{{ '%999999999d' % 1 }}", "cannot use `mod`"),
        (b"{{ content }}{{ 'x' | center(10000000000) }}", "cannot use the filter center"),
        (b"{{ content }}{{ content.ljust(10000000000) }}", "cannot use `call`"),
        (b"{% set a = content ~ content %}{% set a = a ~ a %}{{ content }}{{ a }}", "cannot use `assign`"),
        (b"content", "lacks {{ content }}"),
        (b"{{ content | upper }}", "lacks {{ content }}"),
        (b"{{ content }} <image>", "makes 3 <image> of two"),
        (b"\xff\xfe{{ content }}", "utf-8"),
    ],
)
def test_a_faulty_template_is_one_sentence(tmp_path, template, words) -> None:
    path = tmp_path / "x.jinja"
    path.write_bytes(template)
    with pytest.raises(DataError, match=words) as caught:
        read_format_prompt(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        "{{ content | trim }} Think first.",
        "{% if 'image' in content %}{{ content }}{% else %}{{ content[:9] }}{% endif %}",
    ],
)
def test_a_sound_template_is_returned(tmp_path, template) -> None:
    path = tmp_path / "x.jinja"
    path.write_text(template)
    assert read_format_prompt(path) == template
