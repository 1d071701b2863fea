import { placeLabels } from "../../experiments/plots/place_labels.ts";
import { hasPlot, plotOf, PLOTS } from "../../experiments/plots/plots.ts";
import { renderPlot } from "../../experiments/plots/render_plot.ts";
import { PAPER_COLOUR, SCHEME, SERIES } from "../../experiments/plots/theme.ts";
import { EXPERIMENTS } from "../../experiments/registry.ts";
import { readAllResults } from "../../experiments/render.ts";
import type { Result } from "../../experiments/results/result.ts";
import { RESULTS_ROOT } from "../../experiments/run.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "../assert.ts";
import { makeResult } from "./make_result.ts";

const GPU = { name: "h200", adapter: "NVIDIA H200", software: false };

const END_TO_END = makeResult({
  id: "end_to_end",
  device: GPU,
  rows: [
    ...["7b", "13b"].flatMap((model) =>
      [["f16", 150], ["twobit", 300]].flatMap(([format, speed]) =>
        [128, 1024, 4096].map((context) => ({
          model,
          format,
          context,
          decode_tokens_per_s: Number(speed) - context / 100,
          prefill_tokens_per_s: 1000,
        }))
      )
    ),
    { model: "70b", format: "f16", context: null, decode_tokens_per_s: null, prefill_tokens_per_s: null },
  ],
});

const COST = makeResult({
  id: "cost",
  device: GPU,
  rows: ["24 GB", "80 GB"].flatMap((gpu) => [
    { model: "70b", gpu, format: "f16", memory_bytes: 137e9, gpus: 2, hardware_ratio: 1, cost_ratio: 1 },
    { model: "70b", gpu, format: "twobit", memory_bytes: 25e9, gpus: 1, hardware_ratio: 2, cost_ratio: 3.5 },
    { model: "405b", gpu, format: "twobit", memory_bytes: 150e9, gpus: 2, hardware_ratio: 4, cost_ratio: null },
  ]),
});

/** What a reader sees, in order. */
function textsOf(svg: string): string[] {
  return Array.from(svg.matchAll(/<text[^>]*>([^<]*)<\/text>/g), (match) => match[1]);
}

Deno.test("PLOTS: every experiment has one", () => {
  for (const { id } of EXPERIMENTS) assert(Object.hasOwn(PLOTS, id), id);
});

Deno.test("plotOf: the same bytes whatever was drawn before, for every committed result", async () => {
  const results: Result[] = [];
  for (const ofDevice of (await readAllResults(RESULTS_ROOT)).values()) results.push(...ofDevice.values());
  const drawn = results.filter(hasPlot);
  assert(drawn.length > 0);
  const first: string[] = [];
  for (const result of drawn) first.push(await plotOf(result));
  for (const [i, result] of drawn.toReversed().entries()) assertEquals(await plotOf(result), first.at(-1 - i));
});

Deno.test("plotOf: end_to_end has a panel a model, units, and the paper's line", async () => {
  const texts = textsOf(await plotOf(END_TO_END));
  for (const text of ["Decode speed, 7b", "Decode speed, 13b", "twobit", "f16", "paper: 1.74 x f16"]) {
    assert(texts.includes(text), text);
  }
  assertEquals(texts.filter((text) => text === "decoded tokens/s").length, 2);
  assert(!texts.includes("Decode speed, 70b"));
});

Deno.test("plotOf: cost has memory once a model, ratios by GPU, units, and the paper's values", async () => {
  const svg = await plotOf(COST);
  const texts = textsOf(svg);
  for (const text of ["GB", "24 GB", "80 GB", "paper: up to 2.7", "paper: up to 2.81"]) {
    assert(texts.includes(text), text);
  }
  const shapes = Array.from(svg.matchAll(/<path [^>]*d="([^"]*)"[^>]*fill="#/g), ([, path]) => path);
  const formats = 2; // a legend in each of three panels
  assertEquals(shapes.filter((path) => !path.includes("A")).length, 3 + formats, "bars");
  assertEquals(shapes.filter((path) => path.includes("A")).length, 4 + 2 + 2 * formats, "points");
});

Deno.test("plotOf: accuracy when a method is better than unquantized by chance", async () => {
  const row = { bits_per_weight: 3, perplexity_ratio: 1, perplexity_ratio_error: 0.1, top1: 30, top1_error: 1 };
  const rows = [0.99, 1.5].map((ratio, i) => ({ ...row, method: `rtn${i}`, perplexity_ratio: ratio }));
  const svg = await plotOf(makeResult({ id: "accuracy", rows: [{ ...row, method: "fp16" }, ...rows] }));
  assert(textsOf(svg).includes("rtn0") && textsOf(svg).includes("rtn1"));
});

Deno.test("plotOf: accuracy has a panel of tasks where they were scored", async () => {
  const keys = ["method", "piqa_acc", "piqa_acc_error", "arc_easy_acc", "arc_easy_acc_error", "arc_easy_acc_norm"];
  const rows = ["fp16", "rtn2", "twobit"].map((method, i) => ({
    method,
    bits_per_weight: 16 / (i + 1),
    perplexity_ratio: 1 + i,
    perplexity_ratio_error: 0.1,
    top1: 40 - i,
    top1_error: 1,
    piqa_acc: 70 - 10 * i,
    piqa_acc_error: 3,
    arc_easy_acc: 60 - 10 * i,
    arc_easy_acc_error: 4,
    arc_easy_acc_norm: 1,
  }));
  const columns = keys.map((key) => ({ key, label: key, unit: "" }));
  const result = makeResult({ id: "accuracy", columns, rows });
  const texts = textsOf(await plotOf(result));
  assert(texts.includes("mean over tasks (%), ± standard error"));
  assertEquals(texts.filter((text) => text.startsWith("paper: plain 2-bit loses")).length, 2);
  // By hand: the mean of 50 and 60 with an error of sqrt(3² + 4²) / 2.
  assertStringIncludes(JSON.stringify(PLOTS.accuracy(result)), '"y":55,"error":2.5');
});

Deno.test("plotOf: calibration has a panel for each evaluation, with both methods and their errors", async () => {
  const names = ["speeches", "mix"];
  const rows = names.flatMap((text) =>
    names.map((evaluated) => ({
      ...{ text, evaluated, feedback_ratio: 1.5, feedback_ratio_error: 0.01 },
      ...{ corrected_ratio: 1.25, corrected_ratio_error: 0.25 },
    }))
  );
  const result = makeResult({ id: "calibration", rows });
  const texts = textsOf(await plotOf(result));
  for (const text of ["evaluated on speeches", "evaluated on mix", "corrected", "feedback"]) {
    assert(texts.includes(text), text);
  }
  assertStringIncludes(JSON.stringify(PLOTS.calibration(result)), '"ratio":1.25,"low":1,"high":1.5');
});

Deno.test("hasPlot: not for timings of a software adapter, not for unknown experiments", () => {
  const { device, verdict } = makeResult();
  const unmeasured = { verdict: { ...verdict, measured: null, status: "not measured" as const } };
  assertEquals(hasPlot(makeResult({ id: "async", device, ...unmeasured })), false);
  assertEquals(hasPlot(makeResult({ id: "async", device: GPU })), true);
  assertEquals(hasPlot(makeResult({ id: "toString" })), false);
});

Deno.test("renderPlot: what vega-lite warns of and what has no place is an error, named", async () => {
  const bar = { data: { values: [{ a: 1 }] }, mark: "bar" };
  const x = { field: "a", type: "quantitative" };
  await assertRejects(
    () => renderPlot("made_up", "", { ...bar, encoding: { x: { ...x, scale: { type: "log", zero: true } } } }),
    Error,
    'plot made_up: x-scale\'s "zero" is dropped',
  );
  await assertRejects(
    () => plotOf(makeResult({ id: "accuracy", rows: [{ method: "twobit", bits_per_weight: 3 }] })),
    Error,
    "must be finite",
  );
});

Deno.test("renderPlot: title, dark scheme, names of its own; markup in texts is escaped", async () => {
  const spec = {
    data: { values: [{ a: '<b> & "c"', n: 1 / 3 }] },
    mark: { type: "bar", clip: true },
    encoding: { y: { field: "a", type: "nominal" }, x: { field: "n", type: "quantitative" } },
  };
  const svg = await renderPlot("made_up", "1 < 2", spec);
  assertStringIncludes(svg, "<title>1 &lt; 2</title><style>@media screen and (prefers-color-scheme:dark)");
  assertStringIncludes(svg, 'clip-path="url(#made_up-clip');
  assertStringIncludes(svg, "&lt;b&gt; &amp; ");
  assert(!svg.includes("<b>"));
  for (const [, value] of svg.matchAll(/ (?:d|transform)="([^"]*)"/g)) assert(!/\.\d{3}/.test(value), value);
});

Deno.test("theme: series have a contrast of 3 to both backgrounds, text of 4.5", () => {
  const [light, dark] = SCHEME.background;
  for (const colour of [...SERIES, PAPER_COLOUR]) {
    for (const background of [light, dark]) assert(contrast(colour, background) >= 3, `${colour} on ${background}`);
  }
  for (const name of ["text", "line"] as const) {
    for (const i of [0, 1]) assert(contrast(SCHEME[name][i], SCHEME.background[i]) >= 4.5, name);
  }
});

/** Contrast of two colours as WCAG 2.1 defines it. */
function contrast(a: string, b: string): number {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

function luminance(colour: string): number {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const channel = parseInt(colour.slice(at, at + 2), 16) / 255;
    return channel <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

Deno.test("placeLabels: free points have their label at the right, crowded ones don't share a place", () => {
  assertEquals(placeLabels([{ x: 50, y: 50, label: "a" }], 200, 100), [{ dx: 9, dy: 0, align: "left" }]);
  assertEquals(placeLabels([{ x: 190, y: 50, label: "long name" }], 200, 100)[0].align, "right");
  const crowd = placeLabels(["aaa", "bbb", "ccc", "ddd"].map((label) => ({ x: 100, y: 50, label })), 200, 100);
  assertEquals(new Set(crowd.map((place) => JSON.stringify(place))).size, 4);
});
