import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.rehearsal.handlebars import TemplateError, compile_template, render


@pytest.mark.parametrize(
    ("template", "data", "expected"),
    [
        ("Hello {{name}}!", {"name": "Ben"}, "Hello Ben!"),
        ("{{ user.profile.name }}|{{user.none.name}}", {"user": {"profile": {"name": "Ben"}}}, "Ben|"),
        ("{{x}} {{{x}}}", {"x": "<b>&\"'`="}, "&lt;b&gt;&amp;&quot;&#x27;&#x60;&#x3D; <b>&\"'`="),
        ("{{n}} {{f}} {{b}} {{z}}", {"n": 3, "f": 2.0, "b": False, "z": None}, "3 2 false "),
        ("{{#if a}}A{{else if b}}B{{else}}C{{/if}}", {"b": True}, "B"),
        ("{{#if a}}A{{else if b}}B{{else}}C{{/if}}", {}, "C"),
        ("{{#if a}}A{{else if b}}B{{else if c}}C{{/if}}.", {"c": 1}, "C."),
        ('{{#if a}}A{{else equals b "1"}}B{{else}}C{{/if}}', {"b": 1}, "B"),
        ("{{#if s}}yes{{else}}no{{/if}}", {"s": ""}, "no"),
        ("{{#if s}}yes{{else}}no{{/if}}", {"s": "0"}, "yes"),
        ("{{#if s}}yes{{else}}no{{/if}}", {"s": 0}, "no"),
        ("{{#unless s}}no{{/unless}}", {"s": []}, "no"),
        ('{{#equals 3 "3"}}same{{/equals}}', {}, "same"),
        ('{{#equals run "2026-01-05"}}same{{else}}other{{/equals}}', {"run": "2026-01-04"}, "other"),
        ("{{#equals a b}}same{{else}}other{{/equals}}", {"a": "x"}, "other"),
        ("{{#notEquals a 'x'}}other{{/notEquals}}", {"a": "y"}, "other"),
        ("{{#and a b}}both{{else}}not{{/and}}", {"a": "Pasta", "b": ""}, "not"),
        ("{{#or a b}}one{{/or}}", {"a": False, "b": True}, "one"),
        ("{{#greaterThan a 2}}more{{else}}less{{/greaterThan}}", {"a": "10"}, "more"),
        ("{{#lessThan a 2}}less{{else}}more{{/lessThan}}", {"a": 2}, "more"),
        ("{{#greaterThan a 2}}more{{else}}no{{/greaterThan}}", {"a": "many"}, "no"),
        ("{{#greaterThan (length items) 0}}some{{else}}none{{/greaterThan}}", {"items": [1]}, "some"),
        ("{{length s}} {{length n}}", {"s": "four", "n": 4}, "4 0"),
        (
            "{{#each items}}{{@index}}{{this.t}}{{@root.u}};{{/each}}",
            {"items": [{"t": "a"}, {"t": "b"}], "u": "!"},
            "0a!;1b!;",
        ),
        ("{{#each items}}{{this}}{{else}}none{{/each}}", {"items": []}, "none"),
        ('{{insert name "default=friend"}} {{insert other "there"}}', {"name": ""}, "friend there"),
        ("{{insert name 'default=friend'}}", {"name": "<Ann>"}, "&lt;Ann&gt;"),
        ("a{{! note }}b{{!-- {{x}} --}}c", {}, "abc"),
        ("one\n  {{#if a}}\n  two\n  {{/if}}\nthree\n", {"a": 1}, "one\n  two\nthree\n"),
        ("one {{#if a}}\ntwo{{/if}}\nthree", {"a": 1}, "one \ntwo\nthree"),
        ("{{#if a}}\n{{#if b}}\nx\n{{/if}}\n{{else}}\ny\n{{/if}}", {"a": 1, "b": 1}, "x\n"),
    ],
)
def test_renders_as_sendgrid_documents_it(template: str, data: dict[str, Any], expected: str) -> None:
    assert render(template, data) == expected


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{formatDate x 'YYYY'}}", "unknown helper 'formatDate'"),
        ("{{#with x}}{{/with}}", "unknown block helper 'with'"),
        ("{{lookup x y}}", "unknown helper 'lookup'"),
        ("{{> partial}}", "unknown helper '>'"),
        ("{{#if a}}", "never closed"),
        ("x\n{{/if}}", "line 2"),
        ("{{#if a}}{{/unless}}", "closes no open block"),
        ("{{else}}", "without a block"),
        ("{{#if a}}{{else}}{{else}}{{/if}}", "without a block"),
        ("{{#if a b}}{{/if}}", "takes 1 arguments"),
        ("{{#equals a}}{{/equals}}", "takes 2 arguments"),
        ("{{x", "without its"),
        ("{{{{raw}}}}", "four braces"),
        ("{{}}", "must begin with a name"),
        ("{{../x}}", "neither a name"),
        ("{{@key}}", "unknown; known are"),
        ("{{name | friend}}", "'|' is neither a name"),
        ("{{#greaterThan (length a 1}}{{/greaterThan}}", "without its ')'"),
        ("{{#greaterThan (size a) 1}}{{/greaterThan}}", "unknown helper 'size'"),
        ('{{insert a "b}}', "quote"),
        ("{{~x}}", "neither a name"),
    ],
)
def test_refuses_what_sendgrid_would_not_render(template: str, words: str) -> None:
    with pytest.raises(TemplateError) as caught:
        compile_template(template)
    assert words in str(caught.value)


@given(st.text(), st.text())
def test_data_is_never_a_template(before: str, value: str) -> None:
    plain = before.replace("{", "(")
    assert render(plain + "{{{x}}}", {"x": value}) == plain + value


@given(st.text(alphabet="{}#/ifelsxa\n \"'()=!-", max_size=40))
def test_any_text_renders_or_is_refused(template: str) -> None:
    with contextlib.suppress(TemplateError):
        assert isinstance(render(template, {"x": "1", "a": [1]}), str)


def test_a_long_template_takes_no_long_time() -> None:
    render("{{x}} text " * 20_000, {"x": "y"})
    with pytest.raises(TemplateError, match="nested"):
        compile_template("{{#if a}}" * 100)
