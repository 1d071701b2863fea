import { formatDate } from "../../../model/text/jinja/strftime.ts";
import { renderTemplate } from "../../../model/text/template.ts";
import { assert, assertEquals, assertThrows } from "../../assert.ts";
import { readJson } from "../../fixture.ts";

/** Made by jinja2 3.1 as transformers 5.24 sets it up, and by Python's datetime (tests/fixtures/make_templates.py). */
interface Expected {
  readonly values: Readonly<Record<string, unknown>>;
  /** A template and its text; null where jinja2 fails. */
  readonly templates: readonly (readonly [template: string, text: string | null])[];
  readonly formats: readonly string[];
  readonly dates: readonly (readonly [date: readonly number[], texts: readonly string[]])[];
}

const { values, templates, formats, dates } = await readJson<Expected>("templates.json");

/** The text, or null where the template is refused. */
function tryRender(template: string): string | null {
  try {
    return renderTemplate("m", template, values);
  } catch (error) {
    assert(error instanceof SyntaxError && error.message.length < 300, String(error));
    return null;
  }
}

/** Filters, tests, methods and a statement that no published chat template is known to use; they are refused by name. */
const NOT_KNOWN = new RegExp(
  /\| (abs|d|float|round|sum|wordcount)\b|is (not )?(lower|upper|divisibleby)\b|\{% call\b/.source +
    /|\.(title|removepr\w+|removes\w+|r?find|index|count|rsplit|splitlines|r?partition|is[a-z]+|zfill|encode|copy)\(/
      .source,
);

Deno.test("renderTemplate: about 10,000 templates give jinja2's text or are refused, and those that fail there fail here", () => {
  assert(templates.length > 10_000);
  let refused = 0;
  for (const [template, text] of templates) {
    const rendered = tryRender(template);
    if (NOT_KNOWN.test(template)) assertEquals(rendered, null, template);
    else if (rendered === null && text !== null) refused++;
    else assertEquals(rendered, text, template);
  }
  // Formatting by %, bytes, and what Python puts off by a generator.
  assert(refused < 110, `${refused} are refused`);
});

Deno.test("formatDate: Python's strftime, in English", () => {
  for (const [[year, month, ...rest], texts] of dates) {
    const date = new Date(year, month - 1, ...rest as [number, number, number, number]);
    assertEquals(formats.map((format) => formatDate(date, format)), texts, date.toISOString());
  }
  assertThrows(() => formatDate(new Date(), "%Q"), RangeError, "strftime has no %Q");
});

const HUNGRY: Readonly<Record<string, string>> = {
  "loops in loops": "{% for a in range(99999) %}{% for b in range(99999) %}{{ a * b }}{% endfor %}{% endfor %}",
  "a long range": "{{ range(1000000000) | list }}",
  "a text that doubles":
    "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
  "a list that doubles":
    "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
  "a repeated text": "{{ 'x' * 1000000000 }}",
  "a replaced text": "{% set s = 'x' * 100000 %}{{ s.replace('x', s) }}{{ s.replace('', s) }}",
  "a joined text": "{% set s = 'x' * 100000 %}{{ s.join(s | list) }}",
  "an indented text": "{{ ('x\\n' * 100000) | indent(100000) }}",
  "wide JSON": "{{ [[[[1]]]] | tojson(indent=1000000000) }}",
  "a macro that calls itself": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
  "a template of megabytes": "{# x #}".repeat(300_000),
  "a long run of spaces": " ".repeat(200_000),
  "brackets in brackets": `{{ ${"(".repeat(20_000)}1${")".repeat(20_000)} }}`,
};

for (const [what, template] of Object.entries(HUNGRY)) {
  Deno.test(`renderTemplate: ${what} ends soon, with a message`, () => {
    const startMs = performance.now();
    const { message } = assertThrows(
      () => renderTemplate("m", template, {}),
      SyntaxError,
      "m: the chat template fails: ",
    );
    assert(message.length < 300);
    assert(performance.now() - startMs < 4000, `${performance.now() - startMs} ms`);
  });
}

Deno.test("renderTemplate: a conversation of 2,000 messages is within what a template may take", () => {
  const messages = Array.from(
    { length: 2000 },
    (_, i) => ({ role: i % 2 ? "assistant" : "user", content: "word ".repeat(500) }),
  );
  const template =
    "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('role') }}{% endif %}" +
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] | trim + '<|im_end|>\\n' }}{% endfor %}";
  assertEquals(renderTemplate("m", template, { messages }).length, 1000 * (2 * 2499 + 48 + 4 + 9));
});
