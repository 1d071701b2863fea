import { EXPERIMENTS } from "../../experiments/registry.ts";
import { openPacked } from "../../model/files/open_packed.ts";
import { writeResult } from "../../experiments/results/result.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
import { filesIn, inDirectory } from "../temporary.ts";
import { makeResult } from "../experiments/make_result.ts";

const MAIN = new URL("../../cli/main.ts", import.meta.url).pathname;
const FIXTURE = new URL("../fixtures/llama_tied_gqa/", import.meta.url).pathname;
const TINY = new URL("../../model/tiny/", import.meta.url).pathname;

/** Runs the command line in a process of its own. */
async function run(...args: string[]) {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", MAIN, ...args],
    env: { NO_COLOR: "1" },
  }).output();
  const decoder = new TextDecoder();
  return { code, out: decoder.decode(stdout), err: decoder.decode(stderr) };
}

/** Fails unless a run printed nothing but one line of error (and where to find help). */
function assertOneLine({ code, out, err }: Awaited<ReturnType<typeof run>>, wanted: number, message: string): void {
  assertStringIncludes(err, message);
  const lines = err.trimEnd().split("\n").filter((line) => !line.startsWith("See deno task "));
  assertEquals([code, out, lines.length], [wanted, "", 1], err);
}

const BAD_USAGE: readonly (readonly [args: string[], message: string])[] = [
  [[], "command is missing, must be one of reproduce, experiment"],
  [["reproduced"], "command is reproduced, must be one of reproduce, experiment"],
  [["reproduce", "--fast"], "reproduce: Unknown option '--fast'"],
  [["reproduce", "--only", "bits,bytes"], "reproduce: experiment is bytes, must be one of bits, "],
  [["reproduce", "bits"], "reproduce: 1 arguments given, must be none"],
  [["reproduce", "--seed", "x"], "reproduce: --seed is x, must be a number"],
  [["reproduce", "--out"], "reproduce: Option '--out <value>' argument missing"],
  [["experiment"], "experiment: 0 arguments given, must be ID"],
  [["experiment", "accuracy", "--device", "tpu"], "experiment: --device is tpu, must be one of auto, cpu, gpu"],
  [["reproduce", "--calibration", "sotu"], "reproduce: --calibration is sotu, must be mix, self, calibration"],
  [["experiment", "toString"], "experiment: experiment is toString, must be one of bits, "],
  [["quantize"], "quantize: --out is missing, must name the packed file to write"],
  [["quantize", "--out", "q", "--method", "x"], "quantize: --method is x, must be one of corrected, feedback, search"],
  [["quantize", "--out", "q", "--refine", "3"], "quantize: --refine is 3, must be one of none, 16, 8, 4, 2, 1"],
  [["quantize", "--out", "q", "--outliers", "0.5"], "quantize: --outliers is 0.5, must be a number between 0 and 0.05"],
  [
    ["quantize", "--out", "q", "--calibration", "sotu"],
    "quantize: --calibration is sotu, must be mix, self, calibration, wikitext2, c4 or file:",
  ],
  [["quantize", "--out", "q", "--calibration", "mix+mix"], "quantize: --calibration is mix+mix, must be mix, self"],
  [["quantize", "--out", "q", "--device", "tpu"], "quantize: --device is tpu, must be one of auto, cpu, gpu"],
  [["quantize", "--out", "q", "--layers", "("], "quantize: --layers is (, must be a regular expression"],
  [["quantize", "--out", "q", "--layers", "."], "quantize: --layers is ., must leave a matrix to quantize"],
  [["reproduce", "--only", ","], "reproduce: experiment is , must be one of bits"],
  [["reproduce", "--out", ""], "reproduce: --out is empty, must name a directory"],
  [["perplexity", "--windows", "1"], "perplexity: --windows is 1, must be a number between 2 and"],
  [["dequantize", "--in", "q"], "dequantize: --in and --out are needed"],
  [["perplexity", "--text", "calibration"], "perplexity: --text is calibration, must be one of sotu, moby"],
  [["serve", "--port", "x"], "serve: --port is x, must be a number between 0 and 65535"],
  [["report", "--out", ""], "report: --out is empty, must name the page to write"],
  [["compare", "a"], "compare: 1 arguments given, must be A B"],
  [["perplexity", "--tasks", "mmlu:f"], "perplexity: --tasks has mmlu:f, must be NAME:FILE with a NAME of piqa, hella"],
  [["perplexity", "--tasks", "piqa:"], "perplexity: --tasks has piqa:, must be NAME:FILE"],
  [["compare", "a", "b", "--tolerance", "-1"], "compare: Option"],
  [
    ["bench", "--prompt", "0", "--generate", "0"],
    "bench: --prompt and --generate are 0, one of them must be 1 or more",
  ],
  [["bench", "--shape", "llama-2-7b", "--model", "tiny"], "bench: --model and --shape are given, must be one of them"],
  [
    ["bench", "--depth", "0,4000"],
    "bench: --depth 4000 with --prompt 512 and --generate 128 takes 4512 tokens, must be",
  ],
  [["bench", "--activations", "4"], "bench: --activations is 4, must be one of 8, 16"],
  [["bench", "--cache-bits", "4"], "bench: --cache-bits is 4, must be one of 8, 16"],
  [["bench", "--batch", "4,129"], "bench: --batch is 129, must be whole numbers from 1 to 128 with commas between"],
  [["bench", "--batch", "4", "--generate", "0"], "bench: --batch is given and --generate is 0, must be 1 or more"],
  [
    ["quantize", "--out", "q", "--densities", "kl", "--refine", "8"],
    "quantize: --refine is given and --densities is kl, must be one of them",
  ],
  [
    ["quantize", "--out", "q", "--tune", "--untuned"],
    "quantize: --tune and --untuned are given, must be one of them",
  ],
  [["bench", "--refine", "8"], "bench: --refine needs --shape, a model has a density of its own"],
  [
    ["bench", "--shape", "llama-2-7b", "--refine", "8,3"],
    "bench: --refine has 3, must be one of none, 16, 8, 4, 2, 1, or",
  ],
  [["bench", "--shape", "llama-2-7b", "--refine", "8/8"], "bench: --refine has 8/8, must be one of none, 16, 8, 4, 2,"],
  [
    ["bench", "--shape", "llama-2-7b", "--format", "f16", "--refine", "8"],
    "bench: --refine is given and --format is f16, must be twobit",
  ],
  [["generate"], "generate: --prompt is missing, must be the text to go on from"],
  [["generate", "--prompt", "a", "--prompts", "f"], "generate: --prompt and --prompts are given, must be one of them"],
  [["perplexity", "--window-tokens", "4097"], "--window-tokens is 4097, must be at most the model's context of 4096"],
  [["compare", "a", "b", "--tolerance=-1"], "compare: --tolerance is -1, must be a number between 0 and 1"],
];

for (const [args, message] of BAD_USAGE) {
  Deno.test(`main: ${["deno task", ...args].join(" ")} is bad usage, exit code 2`, async () => {
    assertOneLine(await run(...args), 2, message);
  });
}

Deno.test("main: --help prints options and ends with 0", async () => {
  const { code, out, err } = await run("reproduce", "--help");
  assertEquals([code, err], [0, ""]);
  for (
    const text of ["Usage: deno task reproduce [options]", "--quick", "--only ID,ID", "--model", "--out DIR", "--json"]
  ) {
    assertStringIncludes(out, text);
  }
  for (const { id } of EXPERIMENTS) assertStringIncludes(out, id);
});

/** Copies a model directory without its tokenizer and changes its config.json; undefined leaves that out. */
async function makeModel(directory: string, changes: object | undefined): Promise<string> {
  const model = `${directory}/model`;
  await Deno.mkdir(model);
  await Deno.copyFile(`${FIXTURE}model.safetensors`, `${model}/model.safetensors`);
  await Deno.copyFile(`${TINY}tokenizer.json`, `${model}/tokenizer.json`);
  const config = JSON.parse(await Deno.readTextFile(`${FIXTURE}config.json`));
  if (changes) await Deno.writeTextFile(`${model}/config.json`, JSON.stringify({ ...config, ...changes }));
  return model;
}

const BAD_MODELS: readonly (readonly [what: string, changes: object | undefined, message: string])[] = [
  ["without config.json", undefined, "has no config.json"],
  [
    "of an unsupported architecture",
    { architectures: ["GPT2LMHeadModel"] },
    'architecture "GPT2LMHeadModel" is not supported, must be one of LlamaForCausalLM',
  ],
  ["whose tokenizer has too many tokens", {}, "the tokenizer has 4096 tokens, must have at most the model's 96"],
];

for (const [what, changes, message] of BAD_MODELS) {
  Deno.test(`main: a model directory ${what} is one line, exit code 1, nothing written`, () =>
    inDirectory(async (directory) => {
      const model = await makeModel(directory, changes);
      const before = filesIn(model);
      assertOneLine(
        await run("reproduce", "--quick", "--only", "bits", "--model", model, "--out", `${directory}/out/deep`),
        1,
        message,
      );
      assertEquals([filesIn(directory), filesIn(model)], [["model"], before]);
    }));
}

Deno.test("main: an --out that cannot be written is one line, exit code 1, nothing written", () =>
  inDirectory(async (directory) => {
    await Deno.writeTextFile(`${directory}/file`, "stays");
    for (const out of [`${directory}/file/below`, `${directory}/file`]) {
      assertOneLine(await run("reproduce", "--quick", "--only", "bits", "--out", out), 1, `cannot write to ${out}`);
    }
    assertEquals(filesIn(directory), ["file"]);
    assertEquals(await Deno.readTextFile(`${directory}/file`), "stays");
  }));

Deno.test("main: experiment ranges writes its result and page, and compare finds two runs equal", () =>
  inDirectory(async (directory) => {
    for (const name of ["a", "b"]) {
      const { code, out, err } = await run("experiment", "ranges", "--quick", "--out", `${directory}/${name}`);
      assertEquals([code, err.trimEnd().split("\n").length], [0, 1], err);
      assertStringIncludes(out, "# Ranges of weight groups");
      assertEquals(filesIn(`${directory}/${name}`), ["ranges.json", "ranges.md", "ranges.svg"]);
    }
    const { code, out } = await run("compare", `${directory}/a`, `${directory}/b`);
    assertEquals([code, out], [0, "1 experiments, every cell is the same\n"]);
  }));

Deno.test("main: compare ends with 1 beyond the tolerance, 0 within, and names what is missing", () =>
  inDirectory(async (directory) => {
    const [a, b] = [`${directory}/a`, `${directory}/b`];
    for (const path of [a, b]) await Deno.mkdir(path);
    await writeResult(a, makeResult());
    await writeResult(b, makeResult({ rows: [{ method: "fp16", bits: 16, time: 99 }, { method: "rtn2", bits: 3 }] }));
    const beyond = await run("compare", a, b);
    assertEquals(beyond.code, 1);
    assertStringIncludes(beyond.out, "2 cells differ (1 drift, 1 unjudged), 1 of them count");
    assertEquals((await run("compare", a, b, "--tolerance", "0.05")).code, 0);
    await writeResult(a, makeResult({ id: "only_here" }));
    const { code, out } = await run("compare", a, b, "--tolerance", "0.05", "--json");
    const { differences, counting } = JSON.parse(out);
    assertEquals([code, counting, differences.length], [1, 1, 3]);
    assert(
      differences.some(({ id, column }: { id: string; column: string }) =>
        id === "only_here" && column === "experiment"
      ),
    );
    const common = await run("compare", a, b, "--tolerance", "0.05", "--common");
    assertEquals(common.code, 0);
    assertStringIncludes(common.out, "Left out: only_here (only in A)");
    assertOneLine(
      await run("compare", a, `${directory}/none`),
      1,
      "is nothing to compare, must be a directory, a device (",
    );
  }));

Deno.test("main: report writes one page and nothing else", () =>
  inDirectory(async (directory) => {
    const { code, out, err } = await run("report", "--out", `${directory}/page.html`);
    assertEquals([code, err], [0, ""]);
    assertStringIncludes(out, `${directory}/page.html: `);
    assertEquals(filesIn(directory), ["page.html"]);
    assertStringIncludes(await Deno.readTextFile(`${directory}/page.html`), "<!DOCTYPE html>");
  }));

Deno.test("main: quantize refuses to overwrite a file or to forget an interrupted run", () =>
  inDirectory(async (directory) => {
    await Deno.writeTextFile(`${directory}/q`, "mine");
    assertOneLine(await run("quantize", "--out", `${directory}/q`), 1, "exists, must be overwritten with --force");
    await Deno.mkdir(`${directory}/r.layers`);
    assertOneLine(await run("quantize", "--out", `${directory}/r`), 1, "holds an interrupted run, go on with --resume");
    assertOneLine(await run("quantize", "--force", "--out", directory), 1, "is a directory, must be a file");
    assertEquals(filesIn(directory), ["q", "r.layers"]);
    assertEquals(await Deno.readTextFile(`${directory}/q`), "mine");
  }));

Deno.test("main: quantize replaces a file that was made from a GGUF file", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/q`;
    await Deno.writeTextFile(path, "mine");
    const model = new URL("../fixtures/gguf/llama_spm.gguf", import.meta.url).pathname;
    const { code, err } = await run(
      ..."quantize --method search --device cpu --force --model".split(" "),
      model,
      "--out",
      path,
    );
    assertEquals(code, 0, err);
    using packed = await openPacked(path);
    assertEquals(packed.files, [path]);
  }));

Deno.test("main: generate wants a packed file from --quantized", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/q.safetensors`;
    assertOneLine(await generate("--quantized", path), 1, `--quantized is ${path}, must be a packed file: `);
    assertOneLine(await generate("--quantized", TINY), 1, `--quantized is ${TINY}, must be a packed file: `);
    const weights = `${TINY}model.safetensors`;
    assertOneLine(
      await generate("--quantized", weights),
      1,
      `--quantized is ${weights}, must be a packed file: ${weights}: format is pt, must be twobit`,
    );
  }));

Deno.test("main: dequantize says what a file is that isn't packed, and writes nothing", () =>
  inDirectory(async (directory) => {
    const dequantize = (path: string) => run("dequantize", "--in", path, "--out", `${directory}/out`);
    const gguf = new URL("../fixtures/gguf/qwen2.gguf", import.meta.url).pathname;
    const what = `${gguf} is a GGUF file, which quantize --model packs and other commands read as it is`;
    assertOneLine(await dequantize(gguf), 1, `dequantize: --in is ${gguf}, must be a packed file: ${what}`);
    assertOneLine(await dequantize(TINY), 1, `--in is ${TINY}, must be a packed file: ${TINY} is not a file`);
    assertEquals(filesIn(directory), []);
  }));

/** Runs `generate` with some prompt. */
function generate(...args: string[]) {
  return run("generate", "--prompt", "Fellow citizens", ...args);
}

for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
  Deno.test(`main: ${signal} while generate downloads its model ends with ${code} at once`, () =>
    inDirectory(async (directory) => {
      const { promise: asked, resolve } = Promise.withResolvers<void>();
      // A hub that never answers.
      const hub = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, ({ signal }) => {
        resolve();
        return new Promise((answer) => signal.addEventListener("abort", () => answer(new Response())));
      });
      const child = new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", MAIN, "generate", "--prompt", "Fellow citizens", "--model", "hf:nobody/nothing"],
        env: {
          HF_ENDPOINT: `http://127.0.0.1:${hub.addr.port}`,
          HF_HOME: directory,
          HF_HUB_CACHE: "",
          HF_HUB_OFFLINE: "",
        },
        stdout: "null",
        stderr: "null",
      }).spawn();
      await Promise.race([asked, child.status]);
      child.kill(signal);
      assertEquals((await child.status).code, code);
      await hub.shutdown();
    }));
}

Deno.test("main: generate --prompts prints the text that each prompt gets alone", () =>
  inDirectory(async (directory) => {
    const prompts = ["Fellow citizens", "The Congress"];
    const [lines, objects] = [`${directory}/prompts.txt`, `${directory}/prompts.jsonl`];
    const mark = "\ufeff"; // as editors on Windows put in front
    Deno.writeTextFileSync(lines, `${mark}${prompts.join("\n\n")}\n`);
    Deno.writeTextFileSync(objects, mark + prompts.map((prompt) => JSON.stringify({ prompt })).join("\n"));
    const options = ["--max-tokens", "6", "--json"];
    const { sequences } = JSON.parse((await run("generate", "--prompts", lines, ...options)).out);
    for (const [i, prompt] of prompts.entries()) {
      const { text } = JSON.parse((await run("generate", "--prompt", prompt, ...options)).out);
      assertEquals([sequences[i].prompt, sequences[i].text, sequences[i].tokens], [prompt, text, 6]);
    }
    const { out, err } = await run("generate", "--prompts", objects, "--max-tokens", "6");
    for (const { prompt, text } of sequences) {
      assertStringIncludes(out, prompt);
      assertStringIncludes(out, `\n${text}\n`);
    }
    assertStringIncludes(err, "2 texts, ");
  }));

Deno.test("main: generate refuses files without prompts, with too many, and lines that are none", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/prompts.jsonl`;
    const refuses = async (content: string, message: string) => {
      Deno.writeTextFileSync(path, content);
      assertOneLine(await run("generate", "--prompts", path), 2, message);
    };
    await refuses("\n", `--prompts ${path} has 0 prompts, must have 1 to 128`);
    await refuses("{}\n".repeat(129), `--prompts ${path} has 129 prompts, must have 1 to 128`);
    await refuses('{"prompt": "a"}\nb\n', `--prompts ${path}: object 2 is no JSON: `);
    await refuses('{"prompt": ""}', `--prompts ${path}: object 1 has the prompt "", must be a string`);
    const missing = await run("generate", "--prompts", `${directory}/none`);
    assertOneLine(missing, 1, "No such file");
  }));

Deno.test("main: bench --batch gives the speed of all sequences and of each", async () => {
  const sizes = ["--prompt", "0", "--generate", "3", "--depth", "5", "--repetitions", "2", "--batch", "1,3"];
  const { out } = await run("bench", ...sizes, "--json");
  const { rows } = JSON.parse(out);
  assertEquals(rows.map(({ test }: { test: string }) => test), ["tg3 @ d5", "tg3 b1 @ d5", "tg3 b3 @ d5"]);
  for (const row of rows) assertEquals(row.samples.length, 2);
  assertEquals(rows[2].sequences, 3);
  assertEquals(rows[2].sequence_tokens_per_s, rows[2].tokens_per_s / 3);
});

/** Starts a long generation and waits for its first text. */
async function startGenerating() {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", MAIN, "generate", "--prompt", "Fellow citizens", "--max-tokens", "4000"],
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1" },
  }).spawn();
  const reader = child.stdout.getReader();
  assert((await reader.read()).value, "the first text comes");
  return { child, reader };
}

Deno.test("main: an interrupt ends generated text, with its summary and 130", async () => {
  const { child, reader } = await startGenerating();
  child.kill("SIGINT");
  while (!(await reader.read()).done);
  const errors = await new Response(child.stderr).text();
  assertEquals([(await child.status).code, errors.includes("ended by aborted")], [130, true], errors);
});

Deno.test("main: generated text ends well where nobody reads on", async () => {
  const { child, reader } = await startGenerating();
  await reader.cancel();
  const errors = await new Response(child.stderr).text();
  assertEquals([(await child.status).code, errors.includes("ended by aborted")], [0, true], errors);
});

Deno.test("main: an interrupt ends with 130 and leaves no partial file", () =>
  inDirectory(async (directory) => {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "cli/main.ts", "quantize", "--method", "search", "--out", `${directory}/q`],
      stdout: "null",
      stderr: "null",
    }).spawn();
    while (!filesIn(directory).includes("q.layers")) await new Promise((wake) => setTimeout(wake, 20));
    child.kill("SIGINT");
    assertEquals((await child.status).code, 130);
    assertEquals(filesIn(directory), ["q.layers"]);
    assert(filesIn(`${directory}/q.layers`).every((name) => !name.includes("partial")));
  }));
